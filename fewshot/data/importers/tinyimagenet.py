"""Tiny ImageNet, as unpacked from tiny-imagenet-200.zip.

    wnids.txt                       the 200 classes, one WordNet id per line
    train/CLASS/images/*.JPEG       500 images of each
    val/images/*.JPEG               10,000 images; val_annotations.txt says by tabs: name, class and box of each
    test/images/*.JPEG              images whose classes nobody published

As is usual in the field, what is called val there is the test split here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot.core.errors import UserError, shown
from fewshot.data.importers.arrays import taken, the_one
from fewshot.data.importers.items import Item, files_below
from fewshot.data.importers.limits import Limits
from fewshot.data.spec import DatasetSpec

_CLASSES, _ANNOTATIONS = "wnids.txt", "val_annotations.txt"


@dataclass(frozen=True)
class Files:
    """A class's images, each a file."""

    items: Sequence[Item]

    @property
    def origin(self) -> str:
        """One of them."""
        return self.items[0].origin

    @property
    def names(self) -> tuple[str, ...]:
        """What each is called, for messages."""
        return tuple(item.name for item in self.items)


class TinyImageNet:
    """Collects the images and their annotations."""

    kinds = ("image", None)
    title = "Tiny ImageNet's folder"

    def __init__(self) -> None:
        self._train: dict[str, list[Item]] = {}
        self._val: list[Item] = []
        self._annotations: list[Item] = []

    def add(self, item: Item) -> bool:
        """Always True: what it does not need belongs to it, too, such as boxes and the images without a class."""
        folders = item.parts[:-1]
        if item.name == _ANNOTATIONS:
            self._annotations.append(item)
        elif folders[-1:] == ("images",) and folders[-3:-2] == ("train",):
            self._train.setdefault(folders[-2], []).append(item)
        elif folders[-2:] == ("val", "images"):
            self._val.append(item)
        return True

    def classes(self, spec: DatasetSpec, splits: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Files]:
        """(split, class) -> its images, in the order of their numbers; empty if there are no images at all.

        Raises UserError if the annotations are missing, damaged, or name an image that is not there.
        """
        if not self._train and not self._val:
            return {}
        pools = {"train": self._train, "test": self._annotated()}
        found = {}
        for split, classes in splits.items():
            for cls in classes:
                images = sorted(pools["test" if split == "test" else "train"].get(cls, []), key=_number)
                if chosen := images[taken(spec, split, splits, len(images))]:
                    found[split, cls] = Files(chosen)
        return found

    def _annotated(self) -> dict[str, list[Item]]:
        if not self._annotations:
            there = (self._val or next(iter(self._train.values())))[0].origin
            raise UserError(f"{there} is there without val/{_ANNOTATIONS}: give all of the folder tiny-imagenet-200")
        file = the_one(self._annotations)
        images = {item.name: item for item in self._val}
        by_class: dict[str, list[Item]] = {}
        for number, line in enumerate(_lines(file), 1):
            name, _, rest = line.partition("\t")
            if name not in images or not rest:
                raise UserError(f"{file.origin}: line {number} names no image in val/images and its class")
            by_class.setdefault(rest.partition("\t")[0], []).append(images[name])
        return by_class


def listed_classes(sources: Iterable[Path], limits: Limits) -> tuple[str, ...]:
    """The classes that wnids.txt lists; none if there is no such file."""
    found = [item for path in sources if path.exists() for item in files_below(str(path), limits)]
    lists = [item for item in found if item.name == _CLASSES]
    return tuple(_lines(the_one(lists))) if lists else ()


def _lines(item: Item) -> list[str]:
    """Of a text file, without empty ones. UserError if it is not text."""
    try:
        return [line for line in item.read().decode("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{item.origin} is no text ({shown(error)}): fetch it again") from None


def _number(item: Item) -> tuple[int, str]:
    """The 12 of n01443537_12.JPEG; the name decides between equals."""
    digits = "".join(filter(str.isdigit, item.name.rpartition("_")[2]))
    return int(digits[:18] or 0), item.name
