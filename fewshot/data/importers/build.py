"""Sources -> store: read and decode the planned images class by class, check, write.

Memory: one class at a time (600 images of 84x84 are 13 MB), or one pickle.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.files import new_folder
from fewshot.data import store
from fewshot.data.importers import Sources
from fewshot.data.importers.images import RESIZING, decode, fit
from fewshot.data.importers.items import some
from fewshot.data.importers.lists import Lists
from fewshot.data.importers.pickles import Pickle
from fewshot.data.importers.plan import ClassPlan, plan

# mini-ImageNet itself holds 8 pairs of equal images, 5 of them in one class of 600. A class with more than one and
# above this share, such as a class under two names, is a mistake.
MOST_COPIES = 0.05

# Decoding releases the GIL, but threads only pay where that takes longer than handing the work over:
# 84x84 files (3 KB) decode faster in one thread, ImageNet's own (110 KB) twice as fast in two.
WORTH_A_THREAD = 16 * 1024

# begin(what, images) is called as a pass over the images starts; it returns what is told of each few done.
Begin = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True)
class Prepared:
    """`fresh`: written now; else it was there already, as it should be. `record`: its dataset.json."""

    folder: Path
    record: dict
    fresh: bool


def prepare(name: str, paths: list[Path], wanted: Lists, root: Path, size: int, begin: Begin) -> Prepared:
    """Write the store `root/name` of (size, size) images from the sources, or verify the one that is there.

    Raises UserError for whatever is wrong with the sources or the place; then nothing is written.
    """
    folder = root / name
    there = store.occupied(folder)
    with ExitStack() as files:
        sources = Sources(paths, wanted, files)
        reader = _Reader(plan(sources, wanted), size, begin)
        if there:
            return Prepared(folder, _verified(folder, name, reader), fresh=False)
        try:
            with new_folder(folder) as work:
                entries = reader.entries(work)
                source = ", ".join(sorted(sources.kinds))
                record = store.write_record(work, name, entries, source, reader.notes(), reader.details())
        except FileExistsError:
            raise UserError(f"{folder} was made by someone else meanwhile: run again to verify it") from None
    return Prepared(folder, record, fresh=True)


def _verified(folder: Path, name: str, reader: _Reader) -> dict:
    """The record of the store that is there, if it is sound and made of the same images."""
    record = store.verify(folder)
    if record["details"].get("source_sha256") == reader.source_digest():
        return record
    if store.fingerprint(name, reader.entries(None)) == record["fingerprint"]:
        return record  # other files, same pixels
    raise UserError(
        f"{folder} was prepared from other images than these, and left as it is:"
        " delete it, or choose another --data-root"
    )


class _Reader:
    """Reads the planned images, and gathers what there is to say of them."""

    def __init__(self, plans: list[ClassPlan], size: int, begin: Begin) -> None:
        self._plans = plans
        self._size = size
        self._begin = begin
        self._loaded: tuple[Pickle, ...] = ()
        self._reset()

    def _reset(self) -> None:
        self._source = hashlib.sha256(f"{self._size}".encode())
        self._first: dict[bytes, str] = {}  # digest of an image -> where it was met first
        self._unreadable: list[str] = []
        self._copies: list[list[str]] = []
        self._resized = 0

    def source_digest(self) -> str:
        """Digest of the images' files, in order: where it is equal, so are the pixels, with nothing decoded."""
        self._reset()
        advance = self._begin("comparing", self._total)
        for each in self._plans:
            self._read(each)
            advance(each.count)
        return self._source.hexdigest()

    def entries(self, folder: Path | None) -> dict[str, dict]:
        """dataset.json's entry of each split, its array written into `folder` (None: only digested).

        Raises UserError for unreadable images and for classes made of copies.
        """
        self._reset()
        advance = self._begin("decoding", self._total)
        entries = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for split in dict.fromkeys(each.split for each in self._plans):
                plans = [each for each in self._plans if each.split == split]
                shape = (sum(each.count for each in plans), self._size, self._size, 3)
                path = folder / f"{split}.npy" if folder else None
                digest = store.write_array(path, shape, self._blocks(plans, pool, advance))
                entries[split] = {
                    "classes": [each.name for each in plans],
                    "counts": [each.count for each in plans],
                    "shape": list(shape),
                    "sha256": digest,
                }
        if self._unreadable:
            bad = self._unreadable
            raise UserError(f"{len(bad):,} unreadable image{'s' * (len(bad) > 1)}: {some(bad)}; fetch again")
        return entries

    def details(self) -> dict:
        """For dataset.json: the digest of the source, and each copy beside the image that it equals."""
        return {"source_sha256": self._source.hexdigest(), "resized": self._resized, "copies": self._copies}

    def notes(self) -> list[str]:
        """What a reader of results should know of this copy."""
        pickles = [pickle for each in self._plans for pickle in each.pickles]
        notes = []
        if pickles:
            notes.append("The images came from pickles, without names: their order there was kept.")
        if any(pickle.unnamed for pickle in pickles):
            notes.append("The classes came as numbers: taken to be in the order of their names.")
        if any(each.raw for each in self._plans):
            notes.append("The images came from raw ILSVRC 2012: those that the lists number, in numeric order.")
        if self._resized:
            notes.append(f"{self._resized:,} images were resized: {RESIZING.format(self._size)}.")
        if self._copies:
            across = sum(label.split("/")[0] != first.split("/")[0] for label, first in self._copies)
            notes.append(f"Images equal to another one, pixel by pixel: {len(self._copies)}, across splits {across}.")
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
                if pixels is None:
                    self._unreadable.append(each.images[row][0].origin)
                    continue
                block[row] = pixels
                self._resized += resized
                copies += self._is_copy(block[row], each.label(row))
            if copies > max(1, MOST_COPIES * each.count):
                raise UserError(
                    f"class {each.name}: {copies} of its {each.count} images are copies of other images,"
                    f" as {' = '.join(self._copies[-1])}: fetch it again"
                )
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

    def _fitted(self, content: bytes | np.ndarray) -> tuple[np.ndarray | None, bool]:
        """(size, size, 3) uint8, and whether it was resized; None where it is unreadable."""
        pixels = decode(content) if isinstance(content, bytes) else content
        if pixels is None:
            return None, False
        return fit(pixels, self._size), pixels.shape[:2] != (self._size, self._size)

    def _is_copy(self, pixels: np.ndarray, label: str) -> bool:
        first = self._first.setdefault(hashlib.blake2b(pixels, digest_size=16).digest(), label)
        if first != label:
            self._copies.append([label, first])
        return first != label
