"""The store that is there already: whether it is the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data import dataset_json, store
from fewshot.data.importers.lists import Lists
from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

WRITTEN = "prepared"
SOUND = "already prepared, verified, nothing changed:"
MOVED = "already prepared, verified, only its images' folder changed:"
"""How a `prepare` may end."""

_OTHERWISE = "give another --data-root, or another name"


def record(folder: Path) -> dict | None:
    """The record of the store at `folder`, if there is one."""
    return dataset_json.read(folder / "dataset.json") if store.occupied(folder) else None


def agreed_size(folder: Path, there: Mapping, spec: DatasetSpec, size: int | None, say: Callable[[str], None]) -> int:
    """The images' size in the store. Calls `say` if the specification has another.

    Raises UserError if another was asked for, or if the specification has another normalisation.
    """
    normalisation = dataset_json.normalisation_of(there)
    if spec.normalisation and normalisation and spec.normalisation != normalisation:
        raise UserError(
            f"{folder} is there with other mean and std than {spec.name}'s specification gives: delete it, or"
            f" {_OTHERWISE}"
        )
    found = next(iter(there["splits"].values()))["shape"][1]
    if size not in (None, found):
        raise UserError(f"{folder} is there at {found} px; you asked for {size}: {_OTHERWISE}")
    if size is None and spec.image_size != found and spec != DatasetSpec(spec.name):  # a name alone asks for no size
        say(f"{folder} is there at {found} px, and stays so; the specification says {spec.image_size}")
    return found


def same_members(folder: Path, there: Mapping, wanted: Lists, spec: DatasetSpec) -> None:
    """Raises UserError if the store has other splits, classes or counts than the ones wanted."""
    for split in SPLITS:
        entry = there["splits"].get(split, {"classes": [], "counts": []})
        found = dict(zip(entry["classes"], entry["counts"], strict=True))
        asked = {
            name: len(wanted.rows.get((split, cls), ())) or found.get(name)
            for cls in wanted.splits.get(split, ()) for name in spec.stored(cls)
        }  # fmt: skip
        if found == asked:
            continue
        raise UserError(
            f"{folder} is there with other splits: {_members(split, found)}; you asked for {_members(split, asked)}:"
            f" {_OTHERWISE}"
        )


def _members(split: str, counts: Mapping[str, int | None]) -> str:
    images = sum(count or 0 for count in counts.values())
    return f"{len(counts)} classes in {split}" + (f" ({images:,} images)" if None not in counts.values() else "")
