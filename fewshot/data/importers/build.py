"""Sources -> store: plan which images to take, read and write them; or verify the store that is there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data import dataset_json, store
from fewshot.data.channels import Channels
from fewshot.data.importers import existing, imagenet, lists
from fewshot.data.importers.images import quiet_pillow
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.plan import plan
from fewshot.data.importers.reader import Begin, Reader
from fewshot.data.importers.sources import Sources
from fewshot.data.importers.turn import new_store, turn
from fewshot.data.spec import DatasetSpec


@dataclass(frozen=True)
class Prepared:
    """`record`: its dataset.json. `outcome`: whether it was written now, or was there already and is sound."""

    folder: Path
    record: dict
    outcome: str


def prepare(
    spec: DatasetSpec,
    paths: list[Path],
    splits: Path | None,
    root: Path,
    size: int | None,
    begin: Begin,
    limits: Limits,
    say: Callable[[str], None],
) -> Prepared:
    """Write the store `root/spec.name` of (size, size) images from the sources, or verify the one that is there.

    splits: the user's CSV file. size: in pixels; None: that of the store that is there, else the specification's.
    If another process is making the same store, it says so, waits, and verifies the result.

    Raises UserError for anything wrong with the sources or the place, and for a store of another size or with other
    classes; then nothing is written.
    """
    folder = root / spec.name
    if spec.in_files:
        return Prepared(folder, *imagenet.prepare(spec, paths, root, size, limits, say))
    there = existing.record(folder)
    if there:
        size = existing.agreed_size(folder, there, spec, size, say)
    wanted = lists.wanted(spec, splits, paths, limits)
    if there:
        existing.same_members(folder, there, wanted, spec)
    size = size or spec.image_size
    with ExitStack() as held, quiet_pillow():
        sources = Sources(paths, wanted, held, spec, limits)
        reader = Reader(plan(spec, sources, wanted), size, begin, limits)
        if not there:
            held.enter_context(turn(folder, say))
            if not (there := existing.record(folder)):
                return Prepared(folder, _written(folder, spec, sources, reader), existing.WRITTEN)
            existing.agreed_size(folder, there, spec, size, say)
            existing.same_members(folder, there, wanted, spec)
        return Prepared(folder, _verified(folder, reader), existing.SOUND)


def _written(folder: Path, spec: DatasetSpec, sources: Sources, reader: Reader) -> dict:
    """Make the store; returns its record."""
    with new_store(folder) as work:
        channels = None if spec.normalisation else Channels()
        entries = reader.entries(work, channels)
        normalisation = channels.statistics() if channels and "train" in entries else spec.normalisation
        source = ", ".join(sorted(sources.kinds))
        notes = reader.notes(spec) + sources.notes()
        return dataset_json.write(work, spec.name, entries, source, notes, reader.details(), normalisation)


def _verified(folder: Path, reader: Reader) -> dict:
    """The record of the store that is there, if it is sound and made of the same images."""
    record = store.verify(folder)
    if record["details"].get("source_sha256") == reader.source_digest():
        return record
    if dataset_json.fingerprint(reader.entries(None)) == record["fingerprint"]:
        return record  # other files, same pixels
    raise UserError(
        f"{folder} was prepared from other images than these, and left as it is:"
        " delete it, or give another --data-root, or another name"
    )
