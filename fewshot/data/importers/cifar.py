"""The python archives of CIFAR-100 and CIFAR-10, or the folders that they unpack to.

    cifar-100-python     train, test                     pickles: data, fine_labels, filenames
                         meta                            pickle: fine_label_names, 100 names
    cifar-10-batches-py  data_batch_1 ... 5, test_batch  pickles: data, labels, filenames
                         batches.meta                    pickle: label_names, 10 names

`data` is (N, 3072) uint8, one channel after another; labels are N numbers, filenames N names. As the images have names
here, few-shot sets store them in the same order as the same images in class folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fewshot.core.errors import UserError, shown
from fewshot.data.importers.arrays import Part, Pixels, by_class, the_one
from fewshot.data.importers.items import Item, naming_damage
from fewshot.data.importers.unpickle import load
from fewshot.data.spec import DatasetSpec

_SIDE = 32


class Cifar:
    """Collects the files of CIFAR-100's archive."""

    kinds = ("pickle",)
    title = "CIFAR-100's python archive"
    name, archive, folder = "CIFAR-100", "cifar-100-python.tar.gz", "cifar-100-python"
    meta, label_names, labels = "meta", "fine_label_names", "fine_labels"
    parts: Mapping[str, Sequence[str]] = {"train": ("train",), "test": ("test",)}

    def __init__(self) -> None:
        names = [name for files in self.parts.values() for name in files]
        self._files: dict[str, list[Item]] = {name: [] for name in (*names, self.meta)}

    def add(self, item: Item) -> bool:
        """Whether it is one of them, by its name."""
        if known := item.name in self._files:
            self._files[item.name].append(item)
        return known

    def classes(self, spec: DatasetSpec, splits: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Pixels]:
        """(split, class) -> its images; empty if there is no file of these names.

        Raises UserError if one of the files is missing, damaged, or something else.
        """
        there = next((items[0] for items in self._files.values() if items), None)
        if there is None:
            return {}
        for name, items in self._files.items():
            if not items:
                raise UserError(
                    f"{there.origin} is there without {self.name}'s file {name!r}: give {self.archive}, or all of the"
                    f" folder {self.folder}"
                )
        names = self._read(self.meta, self.label_names)[1][0]
        if not isinstance(names, list) or len(set(map(_text, names))) < len(names):
            raise UserError(f"{self._files[self.meta][0].origin}: {self.label_names} is no list of different names")
        classes = [_text(each) for each in names]
        return by_class(spec, splits, [self._part(part, files, classes) for part, files in self.parts.items()])

    def _part(self, part: str, files: Sequence[str], classes: Sequence[str]) -> Part:
        """The images of some files, one after another."""
        pixels, labels, names = zip(*(self._batch(name, len(classes)) for name in files), strict=True)
        rows = np.concatenate(pixels).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        numbers = np.array([label for each in labels for label in each], np.int64)
        return Part(part, self._files[files[0]][0].origin, rows, numbers, classes, [n for each in names for n in each])

    def _batch(self, name: str, classes: int) -> tuple[np.ndarray, list[int], list[str]]:
        """(N, 3072) uint8 pixels, N labels and N names of one file. UserError if it has something else."""
        origin, (data, labels, names) = self._read(name, "data", self.labels, "filenames")
        size = 3 * _SIDE * _SIDE
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != size:
            raise UserError(f"{origin}: data must be one uint8 array (N, {size})")
        if not isinstance(labels, list) or not all(type(v) is int and 0 <= v < classes for v in labels):
            raise UserError(f"{origin}: {self.labels} must be numbers of the {classes} classes that {self.meta} names")
        if not isinstance(names, list) or not len(data) == len(labels) == len(names):
            raise UserError(f"{origin}: data, {self.labels} and filenames must be of one length")
        return data, labels, [_text(each) for each in names]

    def _read(self, name: str, *keys: str) -> tuple[str, list]:
        item = the_one(self._files[name])
        with naming_damage(item.origin), item.open() as file:
            content = load(file, item.origin, item.length(file), item.limits)
        if lost := [key for key in keys if key not in content]:
            raise UserError(f"{item.origin} is not {self.name}'s {name}: it has no {lost[0]}")
        return item.origin, [content[key] for key in keys]


class Cifar10(Cifar):
    """Collects the files of CIFAR-10's archive."""

    title = "CIFAR-10's python archive"
    name, archive, folder = "CIFAR-10", "cifar-10-python.tar.gz", "cifar-10-batches-py"
    meta, label_names, labels = "batches.meta", "label_names", "labels"
    parts = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}


def _text(name: object) -> str:
    """Python 2 wrote names as bytes."""
    return shown(name.decode("latin1") if isinstance(name, bytes) else name)
