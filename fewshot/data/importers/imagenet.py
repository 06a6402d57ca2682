"""ImageNet's folders -> lists of files. No image is decoded, and none is copied.

    train/n01440764/n01440764_10026.JPEG      what the training archives unpack to, one folder per class
    val/n01440764/ILSVRC2012_val_00000293.JPEG    validation images, likewise; or, without folders,
    val/ILSVRC2012_val_00000293.JPEG              beside LOC_val_solution.csv, which lists their classes

Kaggle's ILSVRC/Data/CLS-LOC has this last layout, with LOC_val_solution.csv above it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fewshot.core import sealed
from fewshot.core.errors import UserError
from fewshot.data import dataset_json, store
from fewshot.data.image_files import ImageFiles
from fewshot.data.importers import existing
from fewshot.data.importers.arrays import taken
from fewshot.data.importers.items import files_below, naming, some
from fewshot.data.importers.kinds import named_as_image
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.table import read_table
from fewshot.data.importers.turn import new_store, turn
from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

_WNID = re.compile(r"n\d{8}")
_UNLISTABLE = re.compile("[\n\ud800-\udfff]")  # a list has one line per file, in UTF-8
_SOLUTION = "LOC_val_solution.csv"
File = tuple[str, int]
"""Name below the folder, and bytes."""


def prepare(
    spec: DatasetSpec,
    paths: Sequence[Path],
    root: Path,
    size: int | None,
    limits: Limits,
    say: Callable[[str], None],
) -> tuple[dict, str]:
    """Write the lists `root/spec.name`, or verify those that are there.

    Returns the record, and how it ended (existing.py). If the files of a store have moved, it is told their new folder.
    Raises UserError if classes or images are missing, or if other files were prepared there.
    """
    folder = root / spec.name
    if there := existing.record(folder):
        size = existing.agreed_size(folder, there, spec, size, say)
    entries, lists = _listed(spec, paths, size or spec.image_size, limits)
    if not there:
        with turn(folder, say):
            if not (there := existing.record(folder)):
                return _written(folder, spec, entries, lists), existing.WRITTEN
    return _verified(folder, there, entries)


def _listed(
    spec: DatasetSpec, paths: Sequence[Path], size: int, limits: Limits
) -> tuple[dict[str, dict], dict[str, bytes]]:
    """dataset.json's entry of each split, and its list."""
    base = _base(paths)
    pools = {"train": _by_folder(base / "train"), "test": _tested(base, paths, limits)}
    classes = tuple(sorted(pools["train"]))
    if lost := sorted(set(classes) ^ set(pools["test"])):
        raise UserError(f"{base}: train and val have other classes: {some(lost)}")
    if not classes:
        raise UserError(f"{base / 'train'} has no folders called by WordNet ids, such as n01440764")
    entries: dict[str, dict] = {}
    lists: dict[str, bytes] = {}
    for split in SPLITS:
        chosen = {cls: _chosen(spec, split, pools["test" if split == "test" else "train"][cls]) for cls in classes}
        for cls, its in chosen.items():
            if not its or ((right := spec.count(split)) and len(its) != right):
                raise UserError(f"class {cls} has {len(its)} images for {split}, instead of {right or 'some'}")
        names, sizes = zip(*(file for cls in classes for file in chosen[cls]), strict=True)
        files = ImageFiles(base, names, sizes, size)
        lists[split] = store.list_of(files)
        entries[split] = {
            "classes": list(classes), "counts": [len(chosen[cls]) for cls in classes], "shape": list(files.shape),
            "sha256": sealed.sha256(lists[split]), "files": str(base),
        }  # fmt: skip
    return entries, lists


def _written(folder: Path, spec: DatasetSpec, entries: dict[str, dict], lists: dict[str, bytes]) -> dict:
    notes = ["Classes are in several splits: what is tested was seen in training.",
             "The images stay in their files: the fingerprint covers their names and sizes."]  # fmt: skip
    if isinstance(spec.images, Mapping):
        counts = {split: entry["shape"][0] for split, entry in entries.items()}
        notes += [f"The {split} split has {counts[split]:,} images, the published set {right:,}."
                  for split, right in spec.images.items() if counts[split] != right]  # fmt: skip
    with new_store(folder) as work:
        for split, data in lists.items():
            (work / f"{split}.txt").write_bytes(data)
        return dataset_json.write(work, spec.name, entries, "image files", notes, {}, spec.normalisation)


def _verified(folder: Path, there: Mapping, entries: Mapping[str, Mapping]) -> tuple[dict, str]:
    """The record of the store that is there, with the files where they are now; and how it ended."""
    if there["fingerprint"] != dataset_json.fingerprint(entries):
        raise UserError(
            f"{folder} was prepared from other files, or at another size: delete it, or give another --data-root"
        )
    base = next(iter(entries.values()))["files"]
    if moved := any(entry["files"] != base for entry in there["splits"].values()):
        dataset_json.move_files(folder, base)
    return store.verify(folder), existing.MOVED if moved else existing.SOUND


def _base(paths: Sequence[Path]) -> Path:
    for path in paths:
        with naming(str(path)):
            for below in ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"):
                if (path / below / "train").is_dir() and (path / below / "val").is_dir():
                    return (path / below).resolve()
    raise UserError(f"{paths[0]}: it has no folders train and val; unpack ImageNet's archives into them")


def _chosen(spec: DatasetSpec, split: str, files: Sequence[File]) -> Sequence[File]:
    return files[taken(spec, split, dict.fromkeys(SPLITS, ()), len(files))]


def _by_folder(folder: Path) -> dict[str, list[File]]:
    """Class -> its files, in the order of their names."""
    with naming(str(folder)), os.scandir(folder) as scanned:
        names = sorted(entry.name for entry in scanned if entry.is_dir() and _WNID.fullmatch(entry.name))
    return {name: _files(folder, name) for name in names}


def _is_image(name: str) -> bool:
    return named_as_image(name) and name[0] != "."  # a Mac leaves ._n01440764_18.JPEG beside n01440764_18.JPEG


def _files(folder: Path, below: str) -> list[File]:
    with naming(str(folder / below)), os.scandir(folder / below) as scanned:
        found = [(entry.name, _size(entry)) for entry in scanned if _is_image(entry.name)]
    if wrong := [name for name, _ in found if _UNLISTABLE.search(name)]:
        raise UserError(f"{folder / below / wrong[0]!s} has a name that no list can hold (not UTF-8?): rename it")
    return [(os.path.join(folder.name, below, name), size) for name, size in sorted(found)]


def _size(file: os.DirEntry) -> int:
    with naming(file.path):
        return file.stat().st_size


def _tested(base: Path, paths: Iterable[Path], limits: Limits) -> dict[str, list[File]]:
    if folders := _by_folder(base / "val"):
        return folders
    files = {os.path.basename(name).partition(".")[0]: (name, size) for name, size in _files(base / "val", "")}
    lists = [path for each in paths for path in (each, each / _SOLUTION, base / _SOLUTION) if path.is_file()]
    if not files or not lists:
        remedy = f"make them, or give {_SOLUTION}, too, by --from"
        raise UserError(f"{base / 'val'} has no folder for each class: {remedy}")
    (item,) = files_below(str(lists[0]), limits)
    columns, rows = read_table(item.origin, item.read())
    if not {"imageid", "predictionstring"} <= set(columns):
        raise UserError(f"{item.origin} must have the columns ImageId and PredictionString")
    found: dict[str, list[File]] = {}
    for row in sorted(rows, key=lambda row: row.cells["imageid"]):
        name, cls = row.cells["imageid"], row.cells["predictionstring"].partition(" ")[0]
        if name not in files or not _WNID.fullmatch(cls):
            raise UserError(f"{item.origin}: line {row.line} names no image in val and its class")
        found.setdefault(cls, []).append(files[name])
    return found
