"""Comparison of few-shot results: accuracies in the same tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import QUESTIONS, Answers, Scores, answers, differences, needs
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.power import Need
from fewshot.evaluation.records import Record, read
from fewshot.evaluation.statistics import distinguishable, established, ranks
from fewshot.identity import pixels
from fewshot.reports.comparisons.asked import Asked
from fewshot.reports.comparisons.conclusions import SIGNIFICANT, conclusions, what_it_takes
from fewshot.reports.tables import DEFAULTS, percent, queries_a_class, task_name
from fewshot.runs import Run

_PROTOCOL = ("dataset", "split", "ways", "shots", "queries", "query_alpha", "episodes_seed", "setting")
_NEEDED = {*_PROTOCOL, "head", "episodes", "episodes_file", "episodes_digest", "fingerprint"} - DEFAULTS.keys()


@dataclass(frozen=True)
class Result:
    """One run under one protocol: its row of result.json, and its accuracy in every task."""

    row: dict[str, Any]
    record: Record


def results(run: Run, asked: Asked) -> dict[tuple, list[Result]]:
    """Those that are asked for: for each protocol, those on different tasks or pixels, the longest first.

    Raises UserError if a row or its record is damaged.
    """
    rows, wanted = run.rows, (asked.split, *asked.solver(run.config))
    if not all(row.keys() >= _NEEDED for row in rows):
        raise UserError(f"{run.result_path} is not a result of ours: evaluate {run.folder} again")
    found: dict[tuple, list[Result]] = {}
    for row in sorted((DEFAULTS | row for row in rows), key=lambda row: -row["episodes"]):
        if (row["split"], row["head"], row["transform"]) == wanted:
            found.setdefault(tuple(row[key] for key in _PROTOCOL), []).append(Result(row, read(run, row)))
    return found


def measured(row: Mapping[str, Any]) -> tuple:
    """What two rows of one protocol must have in common to be compared: the tasks and the pixels."""
    return row["episodes_digest"], pixels(row)


def refuse(a: str, row_a: Mapping[str, Any], b: str, row_b: Mapping[str, Any]) -> UserError:
    """Why rows of one protocol of the runs `a` and `b` cannot be compared."""
    if row_a["episodes_digest"] != row_b["episodes_digest"]:
        return UserError(
            f"{a} and {b} share no tasks: their {_title(row_a)} episodes differ"
            f" ({row_a['episodes']:,} and {row_b['episodes']:,} of them); evaluate both on the same data set with the"
            " same --episodes"
        )
    return UserError(
        f"pixels differ: {a} and {b} saw other copies of {row_a['dataset']} (fingerprints"
        f" {row_a['fingerprint'][:12]} and {row_b['fingerprint'][:12]}); evaluate both on one copy"
    )


def name(row: Mapping[str, Any]) -> str:
    """A protocol in a few words."""
    return f"{_title(row)} of {row['queries']} queries"


def title(row: Mapping[str, Any]) -> str:
    """A protocol in words."""
    return f"{_title(row)}, {queries_a_class(row)}, {row['episodes']:,} episodes"


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']} {row['split']} {task_name(row)}"


def show(
    console: Console, names: Sequence[str], found: Sequence[dict[int, Result]], detect: float | None,
    all_pairs: bool = False,
) -> None:  # fmt: skip
    """One protocol: the ranked table, then each entry against the most accurate, or each other, and what it would take.

    names: of the entries; `found` has their results by seed. detect: the difference to establish, in points; None: the
    one seen on this test set.
    """
    scores = [scores_of(by_seed) for by_seed in found]
    row = next(iter(found[0].values())).row
    episodes = np.stack([each.episodes.accuracies for each in scores])
    means, seeds = episodes.mean(1), [list(each.seeds.values()) for each in scores]
    placed = ranks(means, established(distinguishable(episodes), seeds))
    order = sorted(range(len(scores)), key=lambda i: -means[i])
    table = Table(title=title(row), box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("rank", "", *QUESTIONS):
        table.add_column(column, no_wrap=True)
    for i in sorted(order, key=lambda i: placed[i]):
        own = answers(scores[i]).values()
        cells = ["-" if isinstance(each, str) else percent(each.estimate, each.half_width) for each in own]
        table.add_row(str(placed[i]), names[i], *cells)
    console.print(table)
    pairs = differences([scores[i] for i in order])
    for (i, j), gain in pairs.items():
        if i > 0 and not all_pairs:
            continue
        size = size_of(gain, detect)
        takes = plan(gain, size, row, scores[order[i]], len(pairs))
        lines = [*conclusions(names[order[i]], names[order[j]], gain), *what_it_takes(size, takes, of_tasks=True)]
        console.print("\n".join(lines) + "\n")


def scores_of(by_seed: Mapping[int, Result]) -> Scores:
    """An entry's scores. Classes and images that training saw are no sample of new ones."""
    seen = [result.row.get("seen_in_training", {}) for result in by_seed.values()]
    void = {
        f"new {what}": f"training saw these {what}"
        for what in ("classes", "images")
        if any(each.get(what) for each in seen)
    }
    return Scores.of({seed: result.record for seed, result in by_seed.items()}, void)


def size_of(gain: Answers, detect: float | None) -> float:
    """The difference to establish, a fraction of 1: `detect` points, or the one seen on this test set."""
    seen = gain["this test set"]
    assert isinstance(seen, Interval)
    return seen.estimate if detect is None else detect / 100


def plan(gain: Answers, size: float, row: Mapping[str, Any], scores: Scores, tests: int = 1) -> dict[str, Need | str]:
    """What it would take to establish a difference of `size`, at 5% / `tests`; {} for a difference of 0.

    For new images, counted in images of each class for tasks that share no image: a task takes shots + queries of each.
    """
    takes = needs(gain, size, SIGNIFICANT / tests) if size else {}
    tasks, disjoint = takes.get("new images"), scores.disjoint
    if isinstance(tasks, Need) and disjoint is not None and disjoint.classes is not None:
        each = row["shots"] + row["queries"]
        takes["new images"] = tasks.times(row["ways"] * each / len(np.unique(disjoint.classes)), pack=each)
    return takes


def explained() -> str:
    """What the columns mean."""
    return (
        "Per cent, with 95% intervals; each column has its own question. this test set: these networks on these images;"
        " new images: on other images of these classes, from the tasks that share no image, which are few; new classes:"
        " on other classes like these; training anew: the mean over training seeds, on these tasks."
    )
