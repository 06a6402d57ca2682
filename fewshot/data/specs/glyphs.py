"""`glyphs`: characters of many scripts, 32x32, which come with the project.

A small data set of the Omniglot kind, so that every command works before anything is downloaded.
A class is a character, drawn 24 times in the typefaces that matplotlib ships. Each alphabet belongs
to one split, so the test scripts are unseen in training. `scripts/build_glyphs.py` rendered it;
the typefaces' licences are in `data/glyphs.LICENSE.txt`.

data/glyphs.npz keeps one gray channel of 16 levels. `load` gives RGB, as for any other data set, with
equal channels.
"""

from __future__ import annotations

import functools
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.shipped import shipped
from fewshot.data.dataset import Dataset, Split
from fewshot.data.dataset_json import fingerprint, former_fingerprint
from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec
from fewshot.data.store import pixel_digest

FILE = shipped("data") / "glyphs.npz"
LEVELS = 16
STEP = 255 // (LEVELS - 1)  # level 15 is white

# What zipfile and numpy were seen to raise for damage anywhere in the file.
READ_ERRORS = (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@functools.cache
def load() -> Dataset:
    """The embedded data set, decoded once per process; its arrays are read-only.

    Raises UserError if the file is missing, or is not the one that was built.
    """
    return read(FILE)


def read(path: Path) -> Dataset:
    """Open a file that `scripts/build_glyphs.py` wrote. Raises UserError if it is missing or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:  # np.load(path) leaks if damaged
            splits = {name: (archive[f"{name}_classes"].tolist(), archive[f"{name}_levels"]) for name in SPLITS}
            about = json.loads(str(archive["about"]))
        dataset = assemble(splits, about["source"])
        intact = dataset.is_known_as(about["fingerprint"])
    except READ_ERRORS as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if not intact:
        raise _damaged(path, "its pixels are not those that were built")
    return dataset


def assemble(splits: Mapping[str, tuple[list[str], np.ndarray]], source: str) -> Dataset:
    """Dataset from each split's class names and (classes, images, height, width) gray levels."""
    built, entries = {}, {}
    for name, (classes, levels) in splits.items():
        gray = (levels * np.uint8(STEP)).reshape(-1, *levels.shape[2:])
        images = np.stack((gray, gray, gray), axis=-1)  # (N, H, W) -> (N, H, W, 3)
        images.flags.writeable = False
        counts = [levels.shape[1]] * len(classes)
        built[name] = Split(name, images, tuple(classes), tuple(counts))
        entries[name] = {
            "classes": classes,
            "counts": counts,
            "shape": list(images.shape),
            "sha256": pixel_digest(images),
        }
    former = former_fingerprint(SPEC.name, entries)
    return Dataset(SPEC.name, built, fingerprint(entries), source, former_fingerprint=former)


def _damaged(path: Path, why: str) -> UserError:
    why = " ".join(why.split())  # one line
    return UserError(f"the embedded data set {path} is missing or damaged ({why}); install fewshot again")


SPEC = DatasetSpec(
    "glyphs",
    image_size=32,
    images_per_class=24,
    licence="free: pictures of the DejaVu and STIX typefaces, see data/glyphs.LICENSE.txt",
    load=load,
)
