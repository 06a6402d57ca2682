"""Images: importers -> store -> augmented batches. Knows nothing of networks."""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.data import specs
from fewshot.data.spec import DatasetSpec
from fewshot.data.store import Dataset, Split, is_store, open_store, prepared

__all__ = ["Dataset", "DatasetSpec", "Split", "default_dataset", "open_dataset", "specs"]


def open_dataset(name: str, root: str | os.PathLike = "data") -> Dataset:
    """Open a data set: one prepared under `root` by its name, an embedded one, or a user's own by its dotted name.

    Raises UserError where it is none of these, or where its files are not what was written.
    """
    root = Path(root)
    spec = None if is_store(root / name) and name not in specs.names() else specs.find(name)
    if spec is None:
        return open_store(name, root, known={*specs.names(), *prepared(root)})
    return spec.load() if spec.load else open_store(spec.name, root, normalisation=spec.normalisation, asked=name)


def default_dataset(root: str | os.PathLike) -> tuple[str, str]:
    """(name, why) of the data set where none is named: the first of `specs.DEFAULTS` that is there."""
    *preferred, embedded = specs.DEFAULTS
    for name in preferred:
        if is_store(Path(root) / name):
            return name, f"prepared under {root}"
    return embedded, f"embedded; {' or '.join(preferred)} is not prepared under {root}"
