"""dataset.json: what is known about a prepared data set, and its fingerprint (docs/file-formats.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic
from fewshot.data.dataset import Normalisation, digest_of
from fewshot.data.names import NAME, SPLITS

FORMAT = 2  # in format 1 the fingerprint covered the data set's name, too
LARGEST = 256 << 20  # bytes: enough to list a million copies


def fingerprint(entries: Mapping[str, Mapping]) -> str:
    """Digest over each split's classes, counts and array digest (`entries` as in dataset.json)."""
    return digest_of(_facts(entries))


def former_fingerprint(name: str, entries: Mapping[str, Mapping]) -> str:
    """The same, over the data set's name as well: for stores of format 1, and what was made from them."""
    return digest_of([name, _facts(entries)])


def _facts(entries: Mapping[str, Mapping]) -> list:
    return [[split, e["classes"], e["counts"], e["shape"], e["sha256"]] for split, e in entries.items()]


def read(index: Path) -> dict:
    """dataset.json as a dict, with a fingerprint of the present kind. Raises UserError if it is not one of ours."""
    try:
        record = json.loads(read_bounded(index, LARGEST))
        entries = record["splits"]
        _check(record)
        now, former = fingerprint(entries), former_fingerprint(record["name"], entries)
        known = (record["format"], record["fingerprint"]) in ((FORMAT, now), (1, former))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:80]}"
        raise UserError(f"{index} is damaged ({why}); delete {index.parent} and run prepare again") from None
    if not known:
        raise UserError(f"{index} is of another format or was edited; delete {index.parent} and run prepare again")
    return record | {"fingerprint": now}


def _check(record: Mapping) -> None:
    """ValueError, KeyError or TypeError if a dataset.json does not hold what we write into one."""
    for key, kind in (("name", str), ("source", str), ("notes", list), ("details", dict), ("splits", dict)):
        if not isinstance(record[key], kind):
            raise TypeError(f"{key} is no {kind.__name__}")
    if not NAME.fullmatch(record["name"]) or not all(isinstance(note, str) for note in record["notes"]):
        raise ValueError("name or notes")
    if not record["splits"] or not set(record["splits"]) <= set(SPLITS):
        raise ValueError(f"splits {', '.join(record['splits'])}")
    sides = set()
    for split, entry in record["splits"].items():
        classes, counts, shape = entry["classes"], entry["counts"], entry["shape"]
        if not all(isinstance(each, list) for each in (classes, counts, shape)):
            raise TypeError(f"{split}'s classes, counts or shape are no lists")
        if not all(isinstance(cls, str) for cls in classes) or len(set(classes)) < len(classes):
            raise ValueError(f"{split}'s classes")
        if not all(type(count) is int and count > 0 for count in (*counts, *shape)) or len(counts) != len(classes):
            raise ValueError(f"{split}'s counts")
        if len(shape) != 4 or shape[0] != sum(counts) or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"{split}'s shape {shape}")
        if not isinstance(entry["sha256"], str) or not isinstance(entry.get("files", ""), str):
            raise TypeError(f"{split}'s sha256 or files")
        sides.add(shape[1])
    if len(sides) > 1:
        raise ValueError(f"images of {' and '.join(map(str, sorted(sides)))} px")
    normalisation_of(record)


def normalisation_of(record: Mapping) -> Normalisation | None:
    """(mean, std) of a dataset.json; None if an older version wrote it. Raises ValueError if they are not valid."""
    if "normalisation" not in record:
        return None
    mean, std = (tuple(map(float, record["normalisation"][key])) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError(f"normalisation {record['normalisation']}")
    return mean, std


def write(
    folder: Path,
    name: str,
    entries: Mapping[str, Mapping],
    source: str,
    notes: list[str],
    details: Mapping,
    normalisation: Normalisation | None = None,
) -> dict:
    """Write dataset.json beside the arrays, and return it. `entries`: split -> classes, counts, shape, sha256."""
    record = {
        "format": FORMAT,
        "name": name,
        "fingerprint": fingerprint(entries),
        "source": source,
        "notes": notes,
        "splits": entries,
        "details": details,
    }
    if normalisation:
        record["normalisation"] = {"mean": normalisation[0], "std": normalisation[1]}
    (folder / "dataset.json").write_bytes(_written(record))
    return record


def move_files(folder: Path, base: str) -> None:
    """Record in a store's dataset.json that its files are below `base`, which no fingerprint covers."""
    record = read(folder / "dataset.json")
    entries = {split: {**entry, "files": base} for split, entry in record["splits"].items()}
    write_atomic(folder / "dataset.json", _written(record | {"splits": entries}))


def _written(record: Mapping) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()
