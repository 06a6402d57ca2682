"""Data sets kept as pickles of pixels.

learn2learn / Ren (mini-imagenet-cache-*.pkl), one file per split:
    image_data  (N, H, W, 3) uint8        class_dict  {class: indices into image_data}
MetaOptNet (miniImageNet_category_split_*.pickle), one file per split:
    data        (N, H, W, 3) uint8        labels      N numbers
    catname2label {class: number}, in most copies. Without it, numbers are taken to be in the order of the names.

The images have no names, so their order is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fewshot.core.errors import UserError, shown
from fewshot.data.importers.items import Item, naming_damage, some
from fewshot.data.importers.limits import above
from fewshot.data.importers.unpickle import load

REN, METAOPTNET = "learn2learn / Ren pickles", "MetaOptNet pickles"


class Pickle:
    """One file. `counts`: class -> how many images it has; `unnamed`: its classes are only numbered.

    Raises UserError if it has neither layout, is damaged, or carries anything but plain data.
    """

    def __init__(self, item: Item, splits: Mapping[str, tuple[str, ...]]) -> None:
        self.origin = item.origin
        self._item = item
        self._splits = splits
        self.unnamed = False
        self._pixels: np.ndarray | None = None
        self._rows: dict[str, np.ndarray] = {}
        self._read()
        self.counts = {cls: len(rows) for cls, rows in self._rows.items()}
        self.release()  # 800 MB, until its images are asked for

    def images(self, cls: str) -> np.ndarray:
        """(n, H, W, 3) uint8: a class's images, in the order that they have here."""
        pixels = self._read() if self._pixels is None else self._pixels
        return np.ascontiguousarray(pixels[self._rows[cls]])  # also if they are stored column by column

    def release(self) -> None:
        """Free the memory."""
        self._pixels = None

    def _read(self) -> np.ndarray:
        """All images (N, H, W, 3) uint8. Keeps them until they are released, and the rows of each class."""
        with naming_damage(self.origin), self._item.open() as file:
            content = load(file, self.origin, self._item.length(file), self._item.limits)
        if {"image_data", "class_dict"} <= content.keys():
            self.format, pixels, rows = REN, content["image_data"], self._by_class
        elif {"data", "labels"} <= content.keys():
            self.format, pixels, rows = METAOPTNET, content["data"], self._by_label
        else:
            keys = some(sorted(map(shown, content)))
            raise UserError(f"{self.origin}: neither image_data and class_dict nor data and labels in it, but {keys}")
        is_bytes = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
        if not is_bytes or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
            raise UserError(f"{self.origin}: images must be one uint8 array (N, height, width, 3)")
        _, height, width, _ = pixels.shape
        if height * width > (most := self._item.limits.pixels):
            size = above(f"images of {width:,}x{height:,} px", f"{most:,} pixels", height * width / most)
            raise UserError(f"{self.origin}: {size}")
        self._pixels = pixels
        self._rows = rows(content, len(pixels))
        return pixels

    def _by_class(self, content: dict, images: int) -> dict[str, np.ndarray]:
        if not isinstance(content["class_dict"], dict):
            raise UserError(f"{self.origin}: class_dict is not a dict of lists")
        found: dict[str, np.ndarray] = {}
        left = images
        for name, given in content["class_dict"].items():
            cls = shown(name)
            rows = self._integers(given, f"class {cls}", left)
            left -= len(rows)
            if len(rows) and rows.max() >= images:
                raise UserError(f"{self.origin}: class {cls} points outside of its {images:,} images")
            found[str(name)] = rows
        return found

    def _by_label(self, content: dict, images: int) -> dict[str, np.ndarray]:
        labels = self._integers(content["labels"], "labels", images)
        if len(labels) != images:
            raise UserError(f"{self.origin}: {len(labels):,} labels for {images:,} images")
        names = self._names(content, np.unique(labels).tolist())
        # A stable sort groups the rows of a class and keeps their order.
        order = np.argsort(labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        return {names[int(labels[rows[0]])]: rows for rows in groups if len(rows)}

    def _names(self, content: dict, numbers: list[int]) -> dict[int, str]:
        """Class of each number."""
        given = content.get("catname2label")
        if isinstance(given, dict):
            own = self._integers(list(given.values()), "catname2label's values", len(given)).tolist()
            names = dict(zip(own, map(str, given), strict=True))
        else:
            self.unnamed = True
            fitting = [classes for classes in self._splits.values() if len(classes) == len(numbers)]
            if len(fitting) != 1:
                raise UserError(f"{self.origin} names none of its {len(numbers)} classes: which they are is unclear")
            names = dict(zip(numbers, fitting[0], strict=True))
        lost = [number for number in numbers if number not in names]
        if lost:
            raise UserError(f"{self.origin}: label {lost[0]} has no class name")
        return names

    def _integers(self, values: object, what: str, most: int) -> np.ndarray:
        """(n,) int64 of a list, tuple or array of at most `most` whole numbers that are not negative."""
        if isinstance(values, np.ndarray) and values.ndim == 1 and values.size <= most:
            values = values.tolist()
        if isinstance(values, (list, tuple)) and len(values) > most:
            raise UserError(f"{self.origin}: {what} has more numbers than there are images")
        if not isinstance(values, (list, tuple)) or not all(type(v) is int and 0 <= v < 2**31 for v in values):
            raise UserError(f"{self.origin}: {what} must be a list of whole numbers")
        return np.array(values, np.int64)
