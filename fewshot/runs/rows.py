"""The rows of result.json: what each is the result of, and which of them stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from fewshot.core import typed
from fewshot.identity import pixels

_PROTOCOL = ("dataset", "split", "ways", "shots", "queries", "head", "episodes_seed")  # what is asked of a run
_IMPLIED = {"transform": "none"}  # the same; what an older row without the field means
_ONLY_IF_THERE = ("query_alpha",)  # the same, of rows that have it: the key of the others stays as it was
_ROW = {
    "dataset": str, "split": str, "ways": int, "shots": int, "queries": int, "query_alpha": float, "head": str,
    "episodes_seed": int, "transform": str, "setting": Literal["inductive", "transductive"], "episodes": int,
    "accuracy": float, "std": float, "ci95": float, "ci_method": str, "episodes_digest": str, "fingerprint": str,
    "former_fingerprint": str, "membership": str,
    "task_list": str | None, "task_list_digest": str | None, "episodes_file": str, "tasks_file": str,
    "episodes_sha256": str, "tasks_sha256": str, "at_chance": bool,
    "seen_in_training": dict[str, int], "solver_code": str,
}  # fmt: skip


def wrong(rows: Any) -> str | None:
    """What is wrong with the rows of a result.json; None where nothing is."""
    if not isinstance(rows, list):
        return "it lacks results"
    return next((mistake for row in rows if (mistake := typed.wrong(row, _ROW, _PROTOCOL))), None)


def longest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each protocol and copy of the images the row of most episodes."""
    best: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        key = *_protocol(row), pixels(row)
        if key not in best or best[key].get("episodes", 0) < row.get("episodes", 0):
            best[key] = row
    return list(best.values())


def beside(rows: Iterable[dict[str, Any]], new: Sequence[dict[str, Any]], replace: bool) -> list[dict[str, Any]]:
    """Those of `rows` that stay beside `new` ones: of other protocols, tasks or pixels.

    `replace`: those of other protocols only.
    """
    key = _protocol if replace else result_key
    replaced = {key(row) for row in new}
    return [row for row in rows if key(row) not in replaced]


def result_key(row: dict[str, Any]) -> tuple:
    """What a result is the result of: the protocol, its tasks, the pixels."""
    return *_protocol(row), row.get("episodes"), row.get("episodes_digest"), pixels(row)


def _protocol(row: dict[str, Any]) -> tuple:
    asked = [row[name] for name in _PROTOCOL] + [row.get(name, implied) for name, implied in _IMPLIED.items()]
    return *asked, *(row[name] for name in _ONLY_IF_THERE if name in row)
