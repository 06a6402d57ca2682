"""Images: importers -> store -> augmented batches. Knows nothing of networks."""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.data import specs
from fewshot.data.dataset import Dataset, Split
from fewshot.data.spec import DatasetSpec
from fewshot.data.store import is_store, open_store, prepared

__all__ = ["Dataset", "DatasetSpec", "Split", "dataset_name", "default_dataset", "open_dataset", "opened", "specs"]


def open_dataset(name: str, root: str | os.PathLike = "data") -> Dataset:
    """Open a data set by name: one prepared under `root`, an embedded one, or a user's own (dotted name).

    Raises UserError if it is none of these, if its record is damaged, or if an array does not have the recorded shape.
    Pixels are not compared with their digests; running `prepare` again does that.
    """
    spec = _specification(name, root)
    if spec is None:
        return open_store(name, root, known={*specs.names(), *prepared(root)})
    return spec.load() if spec.load else open_store(spec.name, root, normalisation=spec.normalisation, asked=name)


def dataset_name(name: str, root: str | os.PathLike = "data") -> str:
    """The name that a run records: `flowers` for `my_sets.FLOWERS`, which is prepared under that name.

    A user's own embedded data set keeps its dotted name: it can only be found by that.
    """
    spec = _specification(name, root)
    return name if spec is None or spec.load else spec.name


def default_dataset(root: str | os.PathLike) -> tuple[str, str]:
    """(name, why) of the data set to use if none is named: the first of `specs.DEFAULTS` that is there."""
    *preferred, embedded = specs.DEFAULTS
    for name in preferred:
        if is_store(Path(root) / name):
            return name, f"prepared under {root}"
    return embedded, f"embedded; {' or '.join(preferred)} is not prepared under {root}"


def opened(dataset: str | Dataset | None, root: str | os.PathLike | None) -> Dataset:
    """The data set itself, or that of a name; None: `default_dataset`. `root`: None is $FEWSHOT_DATA, else "data"."""
    if isinstance(dataset, Dataset):
        return dataset
    root = root or os.environ.get("FEWSHOT_DATA") or "data"
    return open_dataset(dataset or default_dataset(root)[0], root)


def _specification(name: str, root: str | os.PathLike) -> DatasetSpec | None:
    """The specification of a name, if it has one. A prepared data set with a dot in its name is not a module."""
    return specs.find(name) if name in specs.names() or not is_store(Path(root) / name) else None
