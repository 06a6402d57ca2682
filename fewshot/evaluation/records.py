"""What an evaluation leaves of every task, so that runs can be compared later; the files' only writer and reader.

For each protocol, in the run folder, with NAME like `mini-imagenet-test-5w1s15q`:

    episodes-NAME.npy   (n,) float32: accuracy of each episode                     "episodes_file" of the result row
    tasks-NAME.npz      classes (n, ways) uint16: the episodes' class numbers      "tasks_file"
                        disjoint (t,) float32: accuracies in the tasks that share no image (DisjointSampler)
                        disjoint_classes (t, ways) uint16: their class numbers
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.runs import Run


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


def keep(run: Run, name: str, record: Record) -> dict[str, str]:
    """Write the record's files; returns what the result row says of them."""
    outcomes, disjoint = record.episodes, record.disjoint
    assert outcomes.classes is not None and disjoint is not None and disjoint.classes is not None
    episodes_file, tasks_file = f"episodes-{name}.npy", f"tasks-{name}.npz"
    episodes, tasks = io.BytesIO(), io.BytesIO()
    np.save(episodes, outcomes.accuracies.astype(np.float32))
    np.savez_compressed(
        tasks,
        classes=outcomes.classes.astype(np.uint16),
        disjoint=disjoint.accuracies.astype(np.float32),
        disjoint_classes=disjoint.classes.astype(np.uint16),
    )
    write_atomic(run.folder / episodes_file, episodes.getvalue())
    write_atomic(run.folder / tasks_file, tasks.getvalue())
    return {"episodes_file": episodes_file, "tasks_file": tasks_file}


def read_accuracies(folder: Path, row: dict[str, Any]) -> np.ndarray:
    """(n,) float64: the accuracy of each episode behind a result row. UserError as in `read`."""
    accuracies = _load(folder / row["episodes_file"])
    _check(folder / row["episodes_file"], accuracies, (row["episodes"],))
    return accuracies.astype(np.float64)


def read(run: Run, row: dict[str, Any]) -> Record:
    """The record behind a result row. UserError where a file is missing, damaged, or not of this row."""
    accuracies = read_accuracies(run.folder, row)
    if "tasks_file" not in row:
        return Record(Outcomes(accuracies, None), None)
    path = run.folder / row["tasks_file"]
    tasks = _load(path)
    if not isinstance(tasks, dict) or set(tasks) != {"classes", "disjoint", "disjoint_classes"}:
        raise _damaged(path)
    classes, disjoint, theirs = tasks["classes"], tasks["disjoint"], tasks["disjoint_classes"]
    _check(path, classes, (row["episodes"], row["ways"]))
    _check(path, disjoint, (disjoint.size,))
    _check(path, theirs, (disjoint.size, row["ways"]))
    return Record(Outcomes(accuracies, classes), Outcomes(disjoint.astype(np.float64), theirs))


def _load(path: Path) -> Any:
    """A .npy file's array, a .npz file's arrays by name."""
    try:
        loaded = np.load(path)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: bring it back, or evaluate {path.parent} again") from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise _damaged(path) from None


def _check(path: Path, array: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or not np.isfinite(array).all():
        raise UserError(f"{path} is not what result.json says: evaluate {path.parent} again")


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: evaluate {path.parent} again")
