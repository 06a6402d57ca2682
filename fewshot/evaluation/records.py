"""What an evaluation leaves of every task, so that runs can be compared later; the files' only writer and reader.

For each result, in the run folder, with NAME like `mini-imagenet-test-5w1s15q`:

    episodes-NAME.npy   (n,) float32: accuracy of each episode                     "episodes_file" of the result row
    tasks-NAME.npz      classes (n, ways) uint16: the episodes' class numbers      "tasks_file"
                        disjoint (t,) float32: accuracies in the tasks that share no image (DisjointSampler)
                        disjoint_classes (t, ways) uint16: their class numbers

A row names their digests, too, as "episodes_sha256" and "tasks_sha256". Files are written first, under names that no
row has; they begin to count when result.json is renamed into its place. A result row claims what these files prove. A
reader gets nothing of a row that says something else than they do.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic
from fewshot.core.sealed import sha256
from fewshot.episodes.sampler import ALPHAS
from fewshot.evaluation.statistics import CI_METHOD, summarise
from fewshot.identity import digest
from fewshot.runs import Run

_LARGEST = 256 * 2**20  # bytes of a file, and of an array in it: those of ten million episodes
_LONGEST = 255  # bytes of a file's name: more than that no file system has
_ROUNDING = 1e-6  # of float32 accuracies, as files keep them, in their mean and deviation
_MEMBERS = ("classes", "disjoint", "disjoint_classes")
_OURS = re.compile(r"(episodes|tasks)-[A-Za-z0-9.,=+@_-]+\.np[yz]")


@dataclass(frozen=True)
class Outcomes:
    """Accuracies of n tasks, and which classes each had."""

    accuracies: np.ndarray  # (n,) fractions of 1
    classes: np.ndarray | None  # (n, ways) class numbers; None where they were not kept


@dataclass(frozen=True)
class Record:
    """One run under one protocol."""

    episodes: Outcomes
    disjoint: Outcomes | None
    """The tasks that share no image; None where they were not kept."""


def forget(run: Run, rows: Iterable[dict[str, Any]]) -> None:
    """Delete the files of rows that result.json no longer has."""
    used = {row.get(key) for row in run.rows for key in ("episodes_file", "tasks_file")}
    for name in {str(row.get(key)) for row in rows for key in ("episodes_file", "tasks_file")} - used:
        if _OURS.fullmatch(name):
            (run.folder / name).unlink(missing_ok=True)


def keep(run: Run, readable: str, record: Record) -> dict[str, str]:
    """Write the record's files; returns what the result row says of them.

    Their NAME is `readable`, and a digest of their content where other files have that name: no file is replaced, so
    that rows and records agree whenever the process is killed.
    """
    outcomes, disjoint = record.episodes, record.disjoint
    assert outcomes.classes is not None and disjoint is not None and disjoint.classes is not None
    episodes, tasks = io.BytesIO(), io.BytesIO()
    np.save(episodes, outcomes.accuracies.astype(np.float32))
    np.savez_compressed(
        tasks,
        classes=outcomes.classes.astype(np.uint16),
        disjoint=disjoint.accuracies.astype(np.float32),
        disjoint_classes=disjoint.classes.astype(np.uint16),
    )
    contents = {"episodes": episodes.getvalue(), "tasks": tasks.getvalue()}
    digests = {kind: sha256(data) for kind, data in contents.items()}
    name = re.sub(r"[^A-Za-z0-9.,=+@_-]+", "-", readable)
    for letters in (0, 8, 64):
        full = f"{name}-{digest(digests, letters)}" if letters else name
        files = {"episodes": f"episodes-{full}.npy", "tasks": f"tasks-{full}.npz"}
        there = {kind for kind, file in files.items() if os.path.lexists(run.folder / file)}
        if all(_holds(run.folder / files[kind], contents[kind]) for kind in there):
            break
    for kind in contents.keys() - there:
        write_atomic(run.folder / files[kind], contents[kind])
    return {f"{kind}_file": files[kind] for kind in files} | {f"{kind}_sha256": digests[kind] for kind in files}


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bounded(path, _LARGEST) == data
    except (UserError, OSError):
        return False


def at_hand(folder: Path, row: dict[str, Any]) -> bool:
    """Whether the accuracies behind a result row are there. UserError where what it names is no file's name."""
    return "episodes_file" in row and os.path.lexists(_path(folder, row, "episodes_file"))


def read_accuracies(folder: Path, row: dict[str, Any]) -> np.ndarray:
    """(n,) float64: the accuracy of each episode behind a result row. UserError as in `read`."""
    path = _path(folder, row, "episodes_file")
    accuracies = _npy(path, _bytes(path, row.get("episodes_sha256")))
    _check(path, accuracies, (max(2, row["episodes"]),), "f")
    _check_range(path, accuracies)
    values = accuracies.astype(np.float64)
    _check_claims(folder, path, row, values)
    return values


def read(run: Run, row: dict[str, Any]) -> Record:
    """The record behind a result row.

    UserError where a file is missing, damaged, or not of this row, and where the row's accuracy, deviation or interval
    is not what the file gives.
    """
    accuracies = read_accuracies(run.folder, row)
    if "tasks_file" not in row:
        return Record(Outcomes(accuracies, None), None)
    path = _path(run.folder, row, "tasks_file")
    tasks = _npz(path, _bytes(path, row.get("tasks_sha256")))
    classes, disjoint, theirs = (tasks[name] for name in _MEMBERS)
    _check(path, classes, (row["episodes"], row["ways"]), "ui")
    _check(path, disjoint, (disjoint.size,), "f")
    _check_range(path, disjoint)
    _check(path, theirs, (disjoint.size, row["ways"]), "ui")
    return Record(Outcomes(accuracies, classes), Outcomes(disjoint.astype(np.float64), theirs))


def check_claims(row: dict[str, Any]) -> str | None:
    """What in a row cannot be, whatever its record: None where nothing is."""
    for name in ("accuracy", "std", "ci95"):
        if name in row and not 0 <= row[name] <= 1:
            return f"{name} {row[name]}"
    alpha = row.get("query_alpha", "")  # as leaderboards have it where there is none
    if alpha != "" and not ALPHAS[0] <= alpha <= ALPHAS[1]:
        return f"query_alpha {alpha}"
    return f"ci_method {row['ci_method']!r}" if row.get("ci_method", CI_METHOD) != CI_METHOD else None


def _check_claims(folder: Path, path: Path, row: dict[str, Any], accuracies: np.ndarray) -> None:
    if impossible := check_claims(row):
        raise UserError(f"{folder / 'result.json'} says {impossible}, which cannot be: evaluate {folder} again")
    proven = summarise(accuracies)
    for name in ("accuracy", "std", "ci95"):
        if name in row and abs(row[name] - getattr(proven, name)) > _ROUNDING:
            raise UserError(
                f"{folder / 'result.json'} says {name} {row[name]:.6g}, and {path.name} gives"
                f" {getattr(proven, name):.6g}: evaluate {folder} again"
            )


def _path(folder: Path, row: dict[str, Any], key: str) -> Path:
    name = row[key]
    a_name = Path(name).name == name and "\\" not in name and name not in ("", "..") and name.isprintable()
    if not a_name or len(name.encode()) > _LONGEST:
        raise UserError(f"{folder / 'result.json'} is damaged: {key} {name[:_LONGEST]!r} is no file's name")
    return folder / name


def _bytes(path: Path, digest: str | None) -> bytes:
    try:
        data = read_bounded(path, _LARGEST)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: bring it back, or evaluate {path.parent} again") from None
    if digest not in (None, sha256(data)):
        raise UserError(
            f"{path} is damaged, or another run's: result.json names another sha256; restore it, or evaluate"
            f" {path.parent} again"
        )
    return data


def _npy(path: Path, data: bytes) -> np.ndarray:
    """A .npy file's array. The header promises a size, and no memory is set aside for a promise."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, in_columns, dtype = read_header[version](file)
        if dtype.hasobject or dtype.kind not in "fui" or in_columns and len(shape) > 1:
            raise ValueError
        return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
    except Exception:  # of a header that may be any text, which NumPy parses as Python
        raise _damaged(path) from None


def _npz(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a tasks-*.npz file, which are unpacked no further than is read of any file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sorted(archive.namelist()) != [f"{name}.npy" for name in _MEMBERS]:
                raise _damaged(path)
            unpacked = {}
            for name in _MEMBERS:
                with archive.open(f"{name}.npy") as member:
                    unpacked[name] = member.read(_LARGEST + 1)
    except UserError:
        raise
    except Exception:  # zipfile and zlib have a dozen ways to say it
        raise _damaged(path) from None
    for name, data in unpacked.items():
        if len(data) > _LARGEST:
            raise UserError(f"{path}: {name} unpacks to more than {_LARGEST:,} bytes, the most that is read of a file")
    return {name: _npy(path, data) for name, data in unpacked.items()}


def _check(path: Path, array: np.ndarray, shape: tuple[int, ...], kinds: str) -> None:
    if array.shape != shape or array.dtype.kind not in kinds or not np.isfinite(array).all():
        raise UserError(f"{path} is not what result.json says: evaluate {path.parent} again")


def _check_range(path: Path, accuracies: np.ndarray) -> None:
    if accuracies.size and not (0 <= accuracies.min() and accuracies.max() <= 1):
        raise UserError(f"{path} holds accuracies outside 0 to 1: evaluate {path.parent} again")


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: evaluate {path.parent} again")
