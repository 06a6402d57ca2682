"""The rows of result.json: what each is the result of, and which of them can be there side by side.

There are two kinds, each a list of its own: `results`, of few-shot tasks, and `classification`, of a split's images, as
classified by the run's own classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fewshot.core import typed
from fewshot.identity import pixels


@dataclass(frozen=True)
class Kind:
    """One kind of rows."""

    key: str
    """The key of their list in result.json."""
    hints: Mapping[str, Any]
    """The type of each known field."""
    asked: tuple[str, ...]
    """What was asked of the run: every row has these fields."""
    needed: tuple[str, ...] = ()
    """What else every row has."""
    implied: Mapping[str, Any] = field(default_factory=dict)
    """Also asked of the run: what an older row without the field means."""
    only_if_there: tuple[str, ...] = ()
    """Also asked of the run, for rows that have it: the key of the others stays as it was."""
    measured: tuple[str, ...] = ()
    """Which tasks or images the answer is for, besides the pixels."""

    def wrong(self, rows: Any) -> str | None:
        """What is wrong with the rows of a result.json; None if nothing is."""
        if not isinstance(rows, list):
            return f"it lacks {self.key}"
        needed = (*self.asked, *self.needed)
        return next((mistake for row in rows if (mistake := typed.wrong(row, self.hints, needed))), None)

    def beside(self, rows: Iterable[dict[str, Any]], new: Sequence[dict[str, Any]], replace: bool) -> list[dict]:
        """Those of `rows` that stay beside `new` ones: for another question, other tasks or images, or other pixels.

        `replace`: for another question only.
        """
        key = self.question if replace else self.result
        replaced = {key(row) for row in new}
        return [row for row in rows if key(row) not in replaced]

    def question(self, row: Mapping[str, Any]) -> tuple:
        """What was asked of the run: the protocol."""
        asked = [row[name] for name in self.asked] + [row.get(name, value) for name, value in self.implied.items()]
        return *asked, *(row[name] for name in self.only_if_there if name in row)

    def result(self, row: Mapping[str, Any]) -> tuple:
        """What a row is the result of: the question, the tasks or images, the pixels."""
        return *self.question(row), *(row.get(name) for name in self.measured), pixels(row)


FEWSHOT = Kind(
    "results",
    {
        "dataset": str, "split": str, "ways": int, "shots": int, "queries": int, "query_alpha": float, "head": str,
        "episodes_seed": int, "transform": str, "setting": Literal["inductive", "transductive"], "episodes": int,
        "accuracy": float, "std": float, "ci95": float, "ci_method": str, "episodes_digest": str, "fingerprint": str,
        "former_fingerprint": str, "membership": str,
        "task_list": str | None, "task_list_digest": str | None, "episodes_file": str, "tasks_file": str,
        "episodes_sha256": str, "tasks_sha256": str, "at_chance": bool,
        "seen_in_training": dict[str, int], "solver_code": str, "base": dict[str, str],
    },
    asked=("dataset", "split", "ways", "shots", "queries", "head", "episodes_seed"),
    implied={"transform": "none"},
    only_if_there=("query_alpha",),
    measured=("episodes", "episodes_digest"),
)  # fmt: skip

CLASSIFICATION = Kind(
    "classification",
    {
        "dataset": str, "split": str, "classes": int, "images": int, "classifier": str,
        "top1": float, "top1_ci95": tuple[float, float], "top5": float, "top5_ci95": tuple[float, float],
        "error": float, "ci_method": str, "at_chance": bool, "membership": str, "fingerprint": str,
        "former_fingerprint": str, "images_file": str, "images_sha256": str, "seen_in_training": dict[str, int],
    },
    asked=("dataset", "split"),
    needed=(
        "classes", "classifier", "images", "top1", "top1_ci95", "error", "ci_method", "membership", "fingerprint",
        "images_file",
    ),
    measured=("membership",),
)  # fmt: skip


def longest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The few-shot row with the most episodes, for each protocol and copy of the images."""
    best: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        key = *FEWSHOT.question(row), pixels(row)
        if key not in best or best[key].get("episodes", 0) < row.get("episodes", 0):
            best[key] = row
    return list(best.values())
