"""A split that is too large for memory: image files, decoded on demand by a pool of threads.

`ImageFiles` takes the place of the array of pixels that other splits have. It has an array's shape, length and items,
so whatever reads a split can read it. An item is the evaluation view that the field uses on ImageNet: the shorter side
is resized to 256 if images are 224 px, and the middle is cut out. Training takes random crops (`ImageFiles.crops`).

Shapes: B images, S x S pixels.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.core.errors import UserError
from fewshot.core.process import processors
from fewshot.data.importers.images import Unreadable, picture
from fewshot.data.importers.items import open_regular

_MARGIN = 256 / 224  # the resized shorter side, by the side of what is cut out of it
_TRIES = 10  # at finding a crop that lies within the image, as in torchvision
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random crop: share of the image, width by height

Box = tuple[int, int, int, int]
"""left, top, right, bottom."""


@dataclass(frozen=True)
class ImageFiles:
    """`names`: files below `folder`; `sizes`: their bytes, by which changes are noticed; `side`: S, in pixels."""

    folder: Path
    names: Sequence[str]
    sizes: Sequence[int]
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3), as if the images were decoded."""
        return len(self.names), self.side, self.side, 3

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """The evaluation view, (B, S, S, 3) uint8, or (S, S, 3) for an integer. UserError if a file cannot be read."""
        rows = np.arange(len(self))[index]
        views = list(_decoders().map(self._centre, np.atleast_1d(rows).tolist()))
        if rows.ndim == 0:
            return views[0]
        return np.stack(views) if views else np.empty((0, *self.shape[1:]), np.uint8)

    def check(self) -> None:
        """Raises UserError, which names the first file that is missing or has another size."""
        for name, size in zip(self.names, self.sizes, strict=True):
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise UserError(f"{path} is missing or has changed since it was prepared: restore it")

    def rows(self, index: np.ndarray) -> ImageFiles:
        """These files, in this order."""
        return replace(self, names=[self.names[i] for i in index], sizes=[self.sizes[i] for i in index])

    def crops(
        self, index: np.ndarray, draw: np.random.Generator, mirror: bool, some: slice = slice(None)
    ) -> Callable[[], np.ndarray]:
        """Start decoding random crops of images (B,), with `mirror` half of them mirrored.

        Returns a function that waits for them, (B, S, S, 3) uint8. As torchvision's RandomResizedCrop: 8 to 100 per
        cent of the image, 3:4 to 4:3, resized with bilinear interpolation. What is drawn depends on `draw` alone, not
        on the order of the threads, nor on `some`: the part of the images that is decoded and returned.
        """
        numbers = draw.random((len(index), _TRIES, 4))
        flips = draw.random(len(index)) < (0.5 if mirror else 0.0)
        decoders = _decoders()
        waiting: list[Future] = [
            decoders.submit(self._crop, int(row), tries, bool(flip))
            for row, tries, flip in zip(index[some], numbers[some], flips[some], strict=True)
        ]
        return lambda: np.stack([each.result() for each in waiting])

    def _crop(self, row: int, numbers: np.ndarray, flip: bool) -> np.ndarray:
        image = self._open(row)
        box = random_box(*image.size, numbers)
        # Cut out first: with resize's own `box`, what lies outside would reach into the edges.
        view = np.asarray(image.crop(box).resize((self.side, self.side), Image.Resampling.BILINEAR))
        return view[:, ::-1] if flip else view

    def _centre(self, row: int) -> np.ndarray:
        image = self._open(row)
        shorter = round(self.side * _MARGIN)
        width, height = (int(shorter * side / min(image.size)) for side in image.size)
        left, top = (round((side - self.side) / 2) for side in (width, height))
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((left, top, left + self.side, top + self.side)))

    def _open(self, row: int) -> Image.Image:
        path = self.folder / self.names[row]
        with open_regular(str(path)) as file:
            data = file.read(self.sizes[row] + 1)
        if len(data) != self.sizes[row]:
            raise UserError(f"{path} has changed since it was prepared: restore it, or prepare the data set again")
        try:
            return picture(data)
        except Unreadable as reason:
            raise UserError(f"{path} is unreadable ({reason}): repair it, and prepare the data set again") from None


def joined(parts: Iterable[ImageFiles]) -> ImageFiles:
    """The files of all parts, one part after another; all must be below the same folder, and of one `side`."""
    first, *others = parts
    assert all((each.folder, each.side) == (first.folder, first.side) for each in others)
    every = (first, *others)
    names = [name for each in every for name in each.names]
    return replace(first, names=names, sizes=[size for each in every for size in each.sizes])


def random_box(width: int, height: int, numbers: np.ndarray) -> Box:
    """A random crop of an image, from uniform numbers (tries, 4): area, aspect ratio, top, left.

    As torchvision draws it: the first try that fits; if none does, the middle, as large as the aspect ratios allow.
    """
    low, high = map(math.log, _RATIO)
    for area, form, top, left in numbers.tolist():
        pixels = width * height * (_AREA[0] + (_AREA[1] - _AREA[0]) * area)
        ratio = math.exp(low + (high - low) * form)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
            return x, y, x + w, y + h
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


class Ahead:
    """Random crops for training: while one step is computed, those of the next are decoded.

    `order(step)` says which images a step has, and `draw(step)` gives the generator for its crops. So a step's batch is
    the same whether it was decoded ahead or first thing after a resume. `some`: the part of each batch that this
    process needs.
    """

    def __init__(
        self,
        files: ImageFiles,
        order: Callable[[int], np.ndarray],
        draw: Callable[[int], np.random.Generator],
        mirror: bool,
        some: slice = slice(None),
    ) -> None:
        self._files, self._order, self._draw, self._mirror, self._some = files, order, draw, mirror, some
        self._waiting: dict[int, Callable[[], np.ndarray]] = {}

    def batch(self, step: int) -> np.ndarray:
        """(B, S, S, 3) uint8."""
        this = self._waiting.pop(step, None) or self._begin(step)
        self._waiting = {step + 1: self._begin(step + 1)}
        return this()

    def _begin(self, step: int) -> Callable[[], np.ndarray]:
        return self._files.crops(self._order(step), self._draw(step), self._mirror, self._some)


def _decoders() -> ThreadPoolExecutor:
    """The pool, without warnings of damaged EXIF data, which a few of ImageNet's files have.

    Asked for each batch, because a filter that is set within `warnings.catch_warnings` ends with it.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
    return _pool()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads, for Pillow decodes and resizes without Python's lock."""
    others = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes of one training on this machine share the cores
    return ThreadPoolExecutor(max(1, processors() // others), thread_name_prefix="decode")
