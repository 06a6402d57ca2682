"""SVHN's cropped digits: train_32x32.mat and test_32x32.mat, in MATLAB's format.

    X (32, 32, 3, N) uint8        y (N, 1), the digits 1 to 10; 10 is the digit 0

extra_32x32.mat, 531,131 easier ones, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers.arrays import Part, Pixels, by_class, the_one
from fewshot.data.importers.items import Item
from fewshot.data.importers.matlab import read_arrays
from fewshot.data.spec import DatasetSpec

_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
_ASIDE = "extra_32x32.mat"
_SHAPE = (32, 32, 3)


class Svhn:
    """Collects the two files."""

    kinds = ("mat",)
    title = "SVHN's .mat files"

    def __init__(self) -> None:
        self._files: dict[str, list[Item]] = {name: [] for name in _FILES.values()}

    def add(self, item: Item) -> bool:
        """Whether it is one of SVHN's, by its name."""
        if item.name in self._files:
            self._files[item.name].append(item)
        return item.name in (*self._files, _ASIDE)

    def classes(self, spec: DatasetSpec, splits: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Pixels]:
        """(split, class) -> its images; empty if neither file is there.

        Raises UserError if one is missing, damaged, or something else.
        """
        there = next((items[0] for items in self._files.values() if items), None)
        if there is None:
            return {}
        for name, items in self._files.items():
            if not items:
                raise UserError(f"{there.origin} is there without {name}: give both")
        return by_class(spec, splits, [self._part(spec.labels, part, name) for part, name in _FILES.items()])

    def _part(self, classes: Sequence[str], part: str, name: str) -> Part:
        item = the_one(self._files[name])
        arrays = read_arrays(item, ("X", "y"))
        if lost := [each for each in ("X", "y") if each not in arrays]:
            raise UserError(f"{item.origin} is not SVHN's {name}: it has no array {lost[0]}")
        images, digits = arrays["X"], arrays["y"].ravel()
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != _SHAPE:
            raise UserError(f"{item.origin}: X must be one uint8 array (32, 32, 3, N), and is {images.shape}")
        if len(digits) != images.shape[3] or not np.isin(digits, range(1, 11)).all():
            raise UserError(f"{item.origin}: y must be {images.shape[3]:,} digits from 1 to 10")
        names = [f"{row:06d}" for row in range(len(digits))]
        return Part(part, item.origin, images.transpose(3, 0, 1, 2), digits.astype(np.int64) % 10, classes, names)
