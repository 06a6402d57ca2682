"""Images: importers -> store -> augmented batches. Knows nothing of networks."""

from __future__ import annotations

import os

from fewshot.data import glyphs
from fewshot.data.store import Dataset, Split, open_store

__all__ = ["Dataset", "Split", "open_dataset"]


def open_dataset(name: str, root: str | os.PathLike = "data") -> Dataset:
    """Open a data set by name: `glyphs`, which is embedded, or one prepared under `root`.

    Raises UserError where it is neither, or where its files are not what was written.
    """
    return glyphs.load() if name == "glyphs" else open_store(name, root)
