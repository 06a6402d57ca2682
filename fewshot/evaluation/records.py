"""What an evaluation leaves of every task, so that runs can be compared later; the files' only writer and reader.

For each result, in the run folder, with NAME like `mini-imagenet-test-5w1s15q` (evaluation/record_files.py):

    episodes-NAME.npy   (n,) float32: accuracy of each episode                     "episodes_file" of the result row
    tasks-NAME.npz      classes (n, ways) uint16: the episodes' class numbers      "tasks_file"
                        disjoint (t,) float32: accuracies in the tasks that share no image (DisjointSampler)
                        disjoint_classes (t, ways) uint16: their class numbers. uint32 if one is above 65,535

A result row claims what these files prove. A reader gets nothing from a row that contradicts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.episodes.sampler import ALPHAS
from fewshot.evaluation import record_files
from fewshot.evaluation.statistics import CI_METHOD, summarise
from fewshot.runs import Run

_ROUNDING = 1e-6  # of float32 accuracies, as files keep them, in their mean and deviation
_MEMBERS = ("classes", "disjoint", "disjoint_classes")


@dataclass(frozen=True)
class Outcomes:
    """Accuracies of n tasks, and which classes each had."""

    accuracies: np.ndarray  # (n,) fractions of 1
    classes: np.ndarray | None  # (n, ways) class numbers; None if they were not kept


@dataclass(frozen=True)
class Record:
    """One run under one protocol."""

    episodes: Outcomes
    disjoint: Outcomes | None
    """The tasks that share no image; None if they were not kept."""


def keep(run: Run, readable: str, record: Record) -> dict[str, str]:
    """Write the record's files; returns what the result row says of them."""
    outcomes, disjoint = record.episodes, record.disjoint
    assert outcomes.classes is not None and disjoint is not None and disjoint.classes is not None
    episodes = record_files.npy(outcomes.accuracies.astype(np.float32))
    tasks = record_files.npz(
        classes=record_files.numbers(outcomes.classes),
        disjoint=disjoint.accuracies.astype(np.float32),
        disjoint_classes=record_files.numbers(disjoint.classes),
    )
    return record_files.keep(run, readable, {"episodes": episodes, "tasks": tasks})


def at_hand(folder: Path, row: dict[str, Any]) -> bool:
    """Whether the accuracies behind a result row are there. Raises UserError if what it names is not a file's name."""
    return record_files.at_hand(folder, row, "episodes")


def read_accuracies(folder: Path, row: dict[str, Any]) -> np.ndarray:
    """(n,) float64: the accuracy of each episode behind a result row. Raises UserError as `read` does."""
    path, accuracies = record_files.array(folder, row, "episodes")
    record_files.check(path, accuracies, (max(2, row["episodes"]),), "f")
    _check_range(path, accuracies)
    values = accuracies.astype(np.float64)
    _check_claims(folder, path, row, values)
    return values


def read(run: Run, row: dict[str, Any]) -> Record:
    """The record behind a result row.

    Raises UserError if a file is missing, damaged, or not of this row, or if the row's accuracy, deviation or interval
    is not what the file gives.
    """
    accuracies = read_accuracies(run.folder, row)
    if "tasks_file" not in row:
        return Record(Outcomes(accuracies, None), None)
    path, tasks = record_files.arrays(run.folder, row, "tasks", _MEMBERS)
    classes, disjoint, theirs = (tasks[name] for name in _MEMBERS)
    record_files.check(path, classes, (row["episodes"], row["ways"]), "ui")
    record_files.check(path, disjoint, (disjoint.size,), "f")
    _check_range(path, disjoint)
    record_files.check(path, theirs, (disjoint.size, row["ways"]), "ui")
    return Record(Outcomes(accuracies, classes), Outcomes(disjoint.astype(np.float64), theirs))


def check_claims(row: dict[str, Any]) -> str | None:
    """What in a row is impossible, whatever its record; None if nothing is."""
    for name in ("accuracy", "std", "ci95"):
        if name in row and not 0 <= row[name] <= 1:
            return f"{name} {row[name]}"
    alpha = row.get("query_alpha", "")  # as leaderboards have it if there is none
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


def _check_range(path: Path, accuracies: np.ndarray) -> None:
    if accuracies.size and not (0 <= accuracies.min() and accuracies.max() <= 1):
        raise UserError(f"{path} holds accuracies outside 0 to 1: evaluate {path.parent} again")
