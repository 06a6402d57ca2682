"""CIFAR-100's python archive, cifar-100-python.tar.gz, or the folder cifar-100-python that it unpacks to.

    train, test   pickles: data (N, 3072) uint8, a channel after the other; fine_labels, N numbers; filenames, N names
    meta          pickle: fine_label_names, 100 names

The images have names here, so that they are stored in the same order as the same images in class folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers.arrays import Part, Pixels, by_class, the_one
from fewshot.data.importers.items import Item, naming_damage
from fewshot.data.importers.unpickle import load, shown
from fewshot.data.spec import DatasetSpec

_SIDE = 32


class Cifar:
    """Collects the three files."""

    kind = "pickle"
    title = "CIFAR-100's python archive"

    def __init__(self) -> None:
        self._files: dict[str, list[Item]] = {"train": [], "test": [], "meta": []}

    def add(self, item: Item) -> bool:
        """Whether it is one of them, by its name."""
        if known := item.name in self._files:
            self._files[item.name].append(item)
        return known

    def classes(self, spec: DatasetSpec, splits: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Pixels]:
        """(split, class) -> its images; none where there is no file of these names.

        UserError where one of the three is missing, damaged, or something else.
        """
        there = next((items[0] for items in self._files.values() if items), None)
        if there is None:
            return {}
        for name, items in self._files.items():
            if not items:
                raise UserError(
                    f"{there.origin} is there without CIFAR-100's file {name!r}: give cifar-100-python.tar.gz, or all"
                    " of the folder cifar-100-python"
                )
        names = self._read("meta", "fine_label_names")[1][0]
        if not isinstance(names, list) or len(set(map(_text, names))) < len(names):
            raise UserError(f"{self._files['meta'][0].origin}: fine_label_names is no list of different names")
        return by_class(spec, splits, [self._part(name, [_text(each) for each in names]) for name in ("train", "test")])

    def _part(self, name: str, classes: Sequence[str]) -> Part:
        origin, (data, labels, names) = self._read(name, "data", "fine_labels", "filenames")
        size = 3 * _SIDE * _SIDE
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != size:
            raise UserError(f"{origin}: data must be one uint8 array (N, {size})")
        if not isinstance(labels, list) or not all(type(v) is int and 0 <= v < len(classes) for v in labels):
            raise UserError(f"{origin}: fine_labels must be numbers of the {len(classes)} classes that meta names")
        if not isinstance(names, list) or not len(data) == len(labels) == len(names):
            raise UserError(f"{origin}: data, fine_labels and filenames must be of one length")
        pixels = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        return Part(name, origin, pixels, np.array(labels, np.int64), classes, [_text(each) for each in names])

    def _read(self, name: str, *keys: str) -> tuple[str, list]:
        item = the_one(self._files[name])
        with naming_damage(item.origin), item.open() as file:
            content = load(file, item.origin, item.length(file), item.limits)
        if lost := [key for key in keys if key not in content]:
            raise UserError(f"{item.origin} is not CIFAR-100's {name}: it has no {lost[0]}")
        return item.origin, [content[key] for key in keys]


def _text(name: object) -> str:
    """Python 2 wrote names as bytes."""
    return shown(name.decode("latin1") if isinstance(name, bytes) else name)
