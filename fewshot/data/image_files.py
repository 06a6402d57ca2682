"""A split that fits no memory: image files, decoded by a pool of threads when they are asked for.

What an array of pixels is to other splits, `ImageFiles` is here: it has an array's shape, its length and its items, so
whatever reads a split reads these. An item is the evaluation view: the shorter side resized to 256 where images are 224
px, and the middle cut out, as the field tests on ImageNet. Training takes random crops (`ImageFiles.crops`).

Shapes: B images, S x S pixels.
"""

from __future__ import annotations

import functools
import math
import os
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

_MARGIN = 256 / 224  # of the resized shorter side over what is cut out of it
_TRIES = 10  # at a crop that lies within the image, as torchvision has it
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random crop: share of the image, width by height

Box = tuple[int, int, int, int]
"""left, top, right, bottom."""


@dataclass(frozen=True)
class ImageFiles:
    """`names`: below `folder`; `sizes`: each file's bytes, by which a change is noticed; `side`: S, in pixels."""

    folder: Path
    names: Sequence[str]
    sizes: Sequence[int]
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3), as if they were decoded."""
        return len(self.names), self.side, self.side, 3

    @property
    def nbytes(self) -> int:
        """So many bytes they would have."""
        return math.prod(self.shape)

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """The evaluation view, (B, S, S, 3) uint8; of one number (S, S, 3). UserError where a file cannot be read."""
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self._centre(int(rows))
        views = list(_pool().map(self._centre, rows.tolist()))
        return np.stack(views) if views else np.empty((0, *self.shape[1:]), np.uint8)

    def check(self) -> None:
        """UserError names the first file that is missing, or has another size."""
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
        """Begin to decode random crops of images (B,), half of them mirrored; the result waits for (B, S, S, 3) uint8.

        torchvision's RandomResizedCrop: 8 to 100 per cent of the image, 3:4 to 4:3, and resized, bilinear. What is
        drawn depends on `draw` alone, and not on the order in which threads come to it, nor on `some`: the part of the
        images that is decoded.
        """
        numbers = draw.random((len(index), _TRIES, 4))
        flips = draw.random(len(index)) < (0.5 if mirror else 0.0)
        waiting: list[Future] = [
            _pool().submit(self._crop, int(row), tries, bool(flip))
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
    """The files of all parts, one after another; they lie below one folder."""
    first, *others = parts
    assert all((each.folder, each.side) == (first.folder, first.side) for each in others)
    every = (first, *others)
    names = [name for each in every for name in each.names]
    return replace(first, names=names, sizes=[size for each in every for size in each.sizes])


def random_box(width: int, height: int, numbers: np.ndarray) -> Box:
    """A random crop of an image, from uniform numbers (tries, 4): area, form, top, left.

    As torchvision draws it: the first of the tries that fits; else the middle, as wide or as high as the forms allow.
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
    """Random crops of a training's steps: while one step is computed, those of the next are decoded.

    `order(step)` says which images a step has, `draw(step)` gives the generator of what is drawn for it: so a step's
    batch is the same whether it was decoded ahead, or first thing after a resume. `some`: the part of each batch that
    this process needs.
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


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads, for Pillow decodes and resizes without Python's lock."""
    others = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes of one training on this machine share the cores
    return ThreadPoolExecutor(max(1, processors() // others), thread_name_prefix="decode")
