"""The format of MNIST and Fashion-MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-*, gzipped or not.

    magic 0 0 8 D, D sizes as big-endian int32, then the bytes: D = 3 for images (N, height, width), 1 for labels (N,)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers.arrays import Part, Pixels, by_class, the_one
from fewshot.data.importers.items import Item
from fewshot.data.importers.limits import above
from fewshot.data.spec import DatasetSpec

_NAME = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte")
_PARTS = {"train": "train", "t10k": "test"}


class Idx:
    """Collects the four files."""

    kinds = ("idx",)
    title = "IDX files"

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], list[Item]] = {
            (part, what): [] for part in _PARTS for what in ("images", "labels")
        }

    def add(self, item: Item) -> bool:
        """Whether it is one of them, by its name."""
        if name := _NAME.fullmatch(item.name):
            self._files[name[1], name[2]].append(item)
        return name is not None

    def classes(self, spec: DatasetSpec, splits: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Pixels]:
        """(split, class) -> its images; empty if there is no such file.

        Raises UserError if one of the four is missing, damaged, or does not fit the others.
        """
        there = next((items[0] for items in self._files.values() if items), None)
        if there is None:
            return {}
        for (part, what), items in self._files.items():
            if not items:
                raise UserError(f"{there.origin} is there without {part}-{what}: give all four files")
        return by_class(spec, splits, [self._part(spec.labels, part, name) for part, name in _PARTS.items()])

    def _part(self, classes: Sequence[str], part: str, name: str) -> Part:
        images, labels = (the_one(self._files[part, what]) for what in ("images", "labels"))
        pixels, numbers = _array(images, 3), _array(labels, 1)
        if len(pixels) != len(numbers):
            raise UserError(f"{images.origin} has {len(pixels):,} images, {labels.origin} {len(numbers):,} labels")
        if numbers.max() >= len(classes):
            raise UserError(f"{labels.origin} has the label {numbers.max()}; there are {len(classes)} classes")
        size = int(np.prod(pixels.shape[1:]))
        if size > (most := images.limits.pixels):
            height, width = pixels.shape[1:]
            raise UserError(f"{images.origin}: " + above(f"images of {width}x{height} px", f"{most:,}", size / most))
        gray = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
        return Part(name, images.origin, gray, numbers, classes, [f"{row:05d}" for row in range(len(pixels))])


def _array(item: Item, dimensions: int) -> np.ndarray:
    """uint8, of this many dimensions. UserError if the file is something else, or longer or shorter than it says."""
    data = item.read()
    head = 4 * (1 + dimensions)
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) < head:
        raise UserError(f"{item.origin} is no IDX file of bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, 4))
    promised = 1
    for size in shape:
        promised *= size
    if promised != len(data) - head or not promised:
        sizes = f"{len(data) - head:,} bytes instead of {promised:,}"
        raise UserError(f"{item.origin} is truncated or corrupt ({sizes}): fetch it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
