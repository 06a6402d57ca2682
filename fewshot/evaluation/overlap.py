"""Whether a network is tested on what it was trained on: the same classes, or the very same images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from fewshot.data import Dataset, Split
from fewshot.data.image_files import ImageFiles
from fewshot.data.names import SPLITS
from fewshot.runs import Run


def seen(training: Dataset, tested: Dataset, split: str, trained: Sequence[str] = ("train",)) -> dict[str, int]:
    """How many `classes` (by name) and `images` (by pixels) of a split were trained on; {} if none were.

    `trained`: the splits of `training` that were trained on. Both data sets have images of one size. Images in files,
    such as ImageNet's, are not compared. Within one data set pixels are not compared: `prepare` has done that, and all
    of `trained` was seen.
    """
    known, asked = [training[name] for name in trained], tested[split]
    classes = len({name for each in known for name in each.classes} & set(asked.classes))
    if training.fingerprint != tested.fingerprint:
        images = _shared_images(known, asked)
    else:
        images = len(asked.images) if split in trained else 0
    return {"classes": classes, "images": images} if classes or images else {}


def trained_splits(run: Run) -> Sequence[str]:
    """The splits of its data set that a run was trained on."""
    found = run.resolved.get("trained_splits")
    return [split for split in SPLITS if split in found] if isinstance(found, list) else ["train"]


def _shared_images(known: Iterable[Split], asked: Split) -> int:
    """How many images of `asked` are also in one of `known`."""
    if isinstance(asked.images, ImageFiles):
        return 0  # to decode all of ImageNet for that would take hours
    digests: set[bytes] = set()
    for each in known:
        if not isinstance(each.images, ImageFiles) and each.images.shape[1:] == asked.images.shape[1:]:
            digests.update(map(_digest, each.images))
    return sum(_digest(image) in digests for image in asked.images)


def _digest(image) -> bytes:
    return hashlib.blake2b(image, digest_size=16).digest()


def in_words(overlap: dict[str, int]) -> str:
    """`3 classes and 60 images`."""
    single = {"classes": "class", "images": "image"}
    return " and ".join(f"{n:,} {single.get(name, name) if n == 1 else name}" for name, n in overlap.items() if n)
