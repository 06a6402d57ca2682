"""Whether a network is tested on what it was trained on: the same classes, or the very same images."""

from __future__ import annotations

import hashlib

from fewshot.data import Dataset, Split
from fewshot.data.image_files import ImageFiles


def seen(training: Dataset, tested: Dataset, split: str) -> dict[str, int]:
    """How many `classes` (by name) and `images` (by pixels) of a split were trained on; {} where none were.

    Both data sets have images of one size. Images in files, such as ImageNet's, are not compared. Within one data set
    pixels are not compared: `prepare` has done that, and the training split was seen whole.
    """
    known, asked = training["train"], tested[split]
    classes = len(set(known.classes) & set(asked.classes))
    if training.fingerprint != tested.fingerprint:
        images = _shared_images(known, asked)
    else:
        images = len(asked.images) if split == "train" else 0
    return {"classes": classes, "images": images} if classes or images else {}


def _shared_images(known: Split, asked: Split) -> int:
    """How many images of `asked` are in `known` as well."""
    if known.images.shape[1:] != asked.images.shape[1:]:
        return 0
    if isinstance(known.images, ImageFiles) or isinstance(asked.images, ImageFiles):
        return 0  # to decode all of ImageNet for that would take hours
    digests = set(map(_digest, known.images))
    return sum(_digest(image) in digests for image in asked.images)


def _digest(image) -> bytes:
    return hashlib.blake2b(image, digest_size=16).digest()


def in_words(overlap: dict[str, int]) -> str:
    """`3 classes and 60 images`."""
    single = {"classes": "class", "images": "image"}
    return " and ".join(f"{n:,} {single.get(name, name) if n == 1 else name}" for name, n in overlap.items() if n)
