"""The planned images, read and decoded class by class, and what is worth knowing about them.

Memory: one class at a time (600 images of 84x84 are 13 MB), or one pickle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.process import processors
from fewshot.data import store
from fewshot.data.channels import Channels
from fewshot.data.importers import ilsvrc, near
from fewshot.data.importers.images import RESIZING, Unreadable, decode, fit
from fewshot.data.importers.items import some
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.pickles import Pickle
from fewshot.data.importers.plan import ClassPlan
from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

# mini-ImageNet itself holds 8 pairs of equal images, 5 of them in one class of 600. More than one copy in a class, and
# more than this share of it, is a mistake, such as one class under two names.
MOST_COPIES = 0.05

# Decoding releases the GIL, but threads are only worth it where decoding takes longer than handing the work over:
# 84x84 files (3 KB) decode faster in one thread, ImageNet's own (110 KB) twice as fast in two.
WORTH_A_THREAD = 16 * 1024

# begin(images, what) is entered for a pass over the images. It gives a function to call with each number done.
Begin = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]


class Reader:
    """Reads the planned images, and notes what is worth knowing about them."""

    def __init__(self, plans: list[ClassPlan], size: int, begin: Begin, limits: Limits) -> None:
        self._plans = plans
        self._size = size
        self._begin = begin
        self._limits = limits
        self._loaded: tuple[Pickle, ...] = ()
        self._reset()

    def _reset(self) -> None:
        self._source = hashlib.sha256(f"{self._size}".encode())
        self._first: dict[bytes, str] = {}  # digest of an image -> where it was met first
        self._unreadable: list[str] = []
        self._copies: list[list[str]] = []
        self._cells: dict[str, list[np.ndarray]] = {}  # split -> for each class, those of its images (near.py)
        self._near: list[list[str]] = []
        self._alike = False
        self._resized = 0

    def source_digest(self) -> str:
        """Digest of the images' files, in order. If it is equal, so are the pixels; nothing needs to be decoded."""
        self._reset()
        with self._begin(self._total, "comparing images") as advance:
            for each in self._plans:
                self._read(each)
                advance(each.count)
        return self._source.hexdigest()

    def entries(self, folder: Path | None, channels: Channels | None = None) -> dict[str, dict]:
        """dataset.json's entry of each split. Its array is written into `folder` (None: only digested).

        The training split's images are added to `channels`.
        Raises UserError for unreadable images and for classes made of copies.
        """
        self._reset()
        entries = {}
        with ThreadPoolExecutor(processors()) as pool, self._begin(self._total, "decoding images") as advance:
            for split in dict.fromkeys(each.split for each in self._plans):
                plans = [each for each in self._plans if each.split == split]
                shape = (sum(each.count for each in plans), self._size, self._size, 3)
                path = folder / f"{split}.npy" if folder else None
                blocks = self._blocks(plans, pool, advance)
                if channels and split == "train":
                    blocks = _added(blocks, channels)
                digest = store.write_array(path, shape, blocks)
                entries[split] = {
                    "classes": [each.name for each in plans],
                    "counts": [each.count for each in plans],
                    "shape": list(shape),
                    "sha256": digest,
                }
        if self._unreadable:
            bad = self._unreadable
            raise UserError(f"{len(bad):,} unreadable image{'s' * (len(bad) > 1)}: {some(bad)}; repair or remove them")
        if folder:
            written = {split: np.load(folder / f"{split}.npy", mmap_mode="r") for split in entries}
            cells = {split: np.concatenate(found) for split, found in self._cells.items()}
            found = near.near_copies(cells, written)
            self._alike = found is None
            self._near = [[self._label(*each) for each in pair] for pair in found or []]
        return entries

    def _label(self, split: str, position: int) -> str:
        for each in (each for each in self._plans if each.split == split):
            if position < each.count:
                break
            position -= each.count
        return each.label(position)

    def details(self) -> dict:
        """For dataset.json: the digest of the source, and each copy beside the image that it equals, or nearly equals.

        For raw ImageNet, also how many files each class had.
        """
        found = {
            "source_sha256": self._source.hexdigest(), "resized": self._resized, "copies": self._copies,
            "near_copies": self._near,
        }  # fmt: skip
        return found | ({"raw_files": self._raw} if self._raw else {})

    @property
    def _raw(self) -> dict[str, int]:
        return {each.name: each.raw for each in self._plans if each.raw}

    def notes(self, spec: DatasetSpec) -> list[str]:
        """What a reader of results should know about this copy."""
        pickles = [pickle for each in self._plans for pickle in each.pickles]
        notes = []
        if pickles:
            notes.append("The images came from pickles, without names: their order there was kept.")
        if any(pickle.unnamed for pickle in pickles):
            notes.append("The classes came as numbers: taken to be in the order of their names.")
        notes += ilsvrc.remarks(self._raw)
        if spec.rotations:
            notes.append("Images turned by 90, 180 or 270 degrees, counterclockwise, are classes of their own.")
        if self._resized:
            notes.append(f"{self._resized:,} images were resized: {RESIZING.format(self._size)}.")
        if len({each.name for each in self._plans}) < len(self._plans):
            notes.append("Classes are in several splits: what is tested was seen in training.")
        notes += _unlike_published(spec, self._plans)
        if self._copies:
            leaks = [pair for pair in self._copies if _is_leak(pair)]
            notes.append(
                f"Images equal to another one, pixel by pixel: {len(self._copies)}, across splits {len(leaks)}."
            )
            if leaks:
                notes.append(f"Leak between splits: {some(' = '.join(pair) for pair in leaks)}.")
        if self._near:
            notes.append(
                f"Nearly equal images across splits, by all appearance copies that were saved anew: {len(self._near)}:"
                f" {some(' ~ '.join(pair) for pair in self._near)}."
            )
        if self._alike:
            notes.append("These images are so much alike that near-copies across splits cannot be told from others.")
        if absent := [split for split in SPLITS if split not in {each.split for each in self._plans}]:
            notes.append(f"There is no {' and no '.join(absent)} split: `train` needs train, val and test.")
        return notes

    @property
    def _total(self) -> int:
        return sum(each.count for each in self._plans)

    def _blocks(self, plans: list[ClassPlan], pool: ThreadPoolExecutor, advance: Callable) -> Iterator[np.ndarray]:
        """(count, size, size, 3) uint8, class by class."""
        for each in plans:
            block = np.zeros((each.count, self._size, self._size, 3), np.uint8)
            copies = 0
            contents = self._read(each)
            spread = pool.map if len(contents[0]) > WORTH_A_THREAD else map
            for row, (pixels, resized) in enumerate(spread(self._fitted, contents)):
                if isinstance(pixels, Unreadable):
                    self._unreadable.append(f"{each.images[row][0].origin} ({pixels})")
                    continue
                block[row] = np.rot90(pixels, each.turns)
                self._resized += resized
                copies += self._is_copy(block[row], each.label(row))
            if copies > max(1, MOST_COPIES * each.count):
                raise UserError(
                    f"class {each.name}: {copies} of its {each.count} images are copies of other images,"
                    f" as {' = '.join(self._copies[-1])}{', a leak between splits' * _is_leak(self._copies[-1])}:"
                    " give each image once"
                )
            self._cells.setdefault(each.split, []).append(near.cells(block))
            yield block
            advance(each.count)

    def _read(self, each: ClassPlan) -> list[bytes] | np.ndarray:
        for pickle in self._loaded:
            if pickle not in each.pickles:
                pickle.release()
        self._loaded = each.pickles
        contents = each.read()
        self._source.update(each.name.encode())
        for content in contents:
            self._source.update(len(content).to_bytes(8, "little"))
            self._source.update(content)
        return contents

    def _fitted(self, content: bytes | np.ndarray) -> tuple[np.ndarray | Unreadable, bool]:
        """(size, size, 3) uint8, and whether it was resized; or why it is unreadable."""
        try:
            pixels = decode(content, self._limits) if isinstance(content, bytes) else content
        except Unreadable as reason:
            return reason, False
        return fit(pixels, self._size), pixels.shape[:2] != (self._size, self._size)

    def _is_copy(self, pixels: np.ndarray, label: str) -> bool:
        first = self._first.setdefault(hashlib.blake2b(pixels.data, digest_size=16).digest(), label)
        if first != label:
            self._copies.append([label, first])
        return first != label


def _unlike_published(spec: DatasetSpec, plans: list[ClassPlan]) -> list[str]:
    """A note if there are more or fewer images than the published set has."""
    published = spec.images if isinstance(spec.images, Mapping) else {"": spec.images}
    notes = []
    for split, right in published.items():
        count = sum(each.count for each in plans if split in ("", each.split))
        if right is not None and count != right:
            where = f"The {split} split has" if split else "There are"
            notes.append(
                f"{where} {count:,} images, the published set {right:,}: these are other tasks than everyone's."
            )
    return notes


def _is_leak(pair: list[str]) -> bool:
    """Whether two images, such as train/cat/1.jpg and test/cat/7.jpg, are in different splits."""
    one, other = (label.split("/")[0] for label in pair)
    return one != other


def _added(blocks: Iterator[np.ndarray], channels: Channels) -> Iterator[np.ndarray]:
    """The same blocks, each added to `channels` as it passes."""
    for block in blocks:
        channels.add(block)
        yield block
