"""Images that come as arrays: the training file and the test file of a data set with a format of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers.items import Item, naming_damage
from fewshot.data.spec import DatasetSpec


@dataclass(frozen=True)
class Part:
    """All images of one of the two files. `name`: train or test."""

    name: str
    origin: str
    pixels: np.ndarray
    """(N, H, W, 3) uint8"""
    labels: np.ndarray
    """(N,) integers: numbers of classes"""
    classes: Sequence[str]
    """By number"""
    names: Sequence[str]
    """(N,) of the images"""

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Class -> its rows, in the order of the file."""
        order = np.argsort(self.labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)
        return {self.classes[self.labels[rows[0]]]: rows for rows in groups if len(rows)}


@dataclass(frozen=True)
class Pixels:
    """A class's images: rows of one part, or of both."""

    chosen: Sequence[tuple[Part, int]]

    @property
    def origin(self) -> str:
        """A file that holds some of them."""
        return self.chosen[0][0].origin

    @property
    def names(self) -> tuple[str, ...]:
        """What each is called, for messages."""
        return tuple(f"{part.names[row]} of {part.name}" for part, row in self.chosen)

    def read(self) -> np.ndarray:
        """(n, H, W, 3) uint8."""
        return np.ascontiguousarray(np.stack([part.pixels[row] for part, row in self.chosen]))


def by_class(spec: DatasetSpec, splits: Mapping[str, Sequence[str]], parts: Sequence[Part]) -> dict:
    """(split, class) -> Pixels, of the classes that the parts hold.

    Few-shot: a class has the images of both parts, in the order of their names. Classification (`shared_classes`): the
    test split is the test part. Of each class's images in the training part, the last ones are the validation split, as
    many as the specification says, and those before them are the training split.
    """
    found = {}
    for split, classes in splits.items():
        for cls in classes:
            if spec.shared_classes:
                (part,) = (each for each in parts if each.name == ("test" if split == "test" else "train"))
                rows = part.rows.get(cls, ())
                chosen = [(part, int(row)) for row in rows[taken(spec, split, splits, len(rows))]]
            else:
                chosen = [(part, int(row)) for part in parts for row in part.rows.get(cls, ())]
                chosen.sort(key=lambda each: (each[0].names[each[1]], each[0].name))
            if chosen:
                found[split, cls] = Pixels(chosen)
    return found


def taken(spec: DatasetSpec, split: str, splits: Mapping[str, Sequence[str]], count: int) -> slice:
    """Which of a class's `count` images a split has: of the test part for `test`, else of the training part."""
    held_out = spec.count("val") or 0 if "val" in splits else 0
    first = max(0, count - held_out)
    return {"train": slice(first), "val": slice(first, None), "test": slice(None)}[split]


def the_one(items: Sequence[Item]) -> Item:
    """The first of some copies of a file. Raises UserError if they differ."""
    first, *others = items
    for other in others:
        if _digest(other) != _digest(first):
            raise UserError(f"{first.origin} and {other.origin} differ: give one of them")
    return first


def _digest(item: Item) -> bytes:
    digest = hashlib.sha256()
    with naming_damage(item.origin), item.open() as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()
