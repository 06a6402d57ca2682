"""What a classifier made of each image of a split, and the record of it: the file's only writer and reader.

In the run folder (evaluation/record_files.py), with NAME like `fashion-mnist-test`:

    images-NAME.npz   truth (n,) uint16: each image's class number, in the order of the split   "images_file" of the row
                      predicted (n,) uint16: the class of the largest logit. uint32 if one is above 65,535
                      top5 (n,) bool: whether the true class is among the five largest

Among equal logits, that of the class with the lower number counts as the larger. The row claims what this file proves.

Shapes: n images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation import record_files
from fewshot.evaluation.proportions import WILSON, wilson
from fewshot.runs import Run

TOP = 5
_MEMBERS = ("truth", "predicted", "top5")
_ROUNDING = 1e-9  # of a count divided by another


@dataclass(frozen=True)
class Verdicts:
    """What a classifier made of n images."""

    truth: np.ndarray
    """(n,) class numbers."""
    predicted: np.ndarray
    """(n,) class numbers."""
    top5: np.ndarray
    """(n,) bool: whether the true class is among the five likeliest."""

    @cached_property
    def top1(self) -> np.ndarray:
        """(n,) bool: whether the likeliest class is the true one."""
        return self.predicted == self.truth

    def figures(self, classes: int) -> dict[str, Any]:
        """What a row says of them. `top5` only if there are more than five classes."""
        n, right = len(self.truth), int(self.top1.sum())
        figures: dict[str, Any] = {
            "images": n, "top1": right / n, "top1_ci95": list(wilson(right, n)), "error": (n - right) / n,
            "ci_method": WILSON,
        }  # fmt: skip
        if classes > TOP:
            among = int(self.top5.sum())
            figures |= {"top5": among / n, "top5_ci95": list(wilson(among, n))}
        return figures


def guessed(row: Mapping[str, Any]) -> bool:
    """Whether the interval reaches down to what naming one class at random gives."""
    return row["top1_ci95"][0] <= 1 / row["classes"]


def keep(run: Run, readable: str, found: Verdicts) -> dict[str, str]:
    """Write the record's file; returns what the row says of it."""
    images = record_files.npz(
        truth=record_files.numbers(found.truth), predicted=record_files.numbers(found.predicted), top5=found.top5
    )
    return record_files.keep(run, readable, {"images": images})


def at_hand(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether the record behind a row is there. Raises UserError if what it names is not a file's name."""
    return record_files.at_hand(folder, dict(row), "images")


def read(folder: Path, row: Mapping[str, Any]) -> Verdicts:
    """The record behind a row.

    Raises UserError if the file is missing, damaged, or not of this row, or if a figure of the row is not what the file
    gives.
    """
    path, found = record_files.arrays(folder, dict(row), "images", _MEMBERS)
    n = max(1, row["images"])
    for name, kinds in zip(_MEMBERS, ("u", "u", "b"), strict=True):
        record_files.check(path, found[name], (n,), kinds)
    truth, predicted = found["truth"].astype(np.int64), found["predicted"].astype(np.int64)
    record = Verdicts(truth, predicted, found["top5"])
    if max(truth.max(), predicted.max()) >= row["classes"] or (record.top1 & ~record.top5).any():
        raise UserError(f"{path} is not what result.json says: evaluate {path.parent} again")
    _check_claims(folder, path, row, record.figures(row["classes"]))
    return record


def _check_claims(folder: Path, path: Path, row: Mapping[str, Any], proven: Mapping[str, Any]) -> None:
    for name in ("top1", "top1_ci95", "error", "top5", "top5_ci95", "ci_method"):
        claimed, found = row.get(name), proven.get(name)
        if not _same(claimed, found):
            raise UserError(
                f"{folder / 'result.json'} says {name} {claimed}, and {path.name} gives {found}: evaluate {folder}"
                " again"
            )


def _same(claimed: Any, found: Any) -> bool:
    if claimed is None or found is None or isinstance(found, str):
        return claimed == found
    return bool(np.allclose(claimed, found, rtol=0, atol=_ROUNDING))
