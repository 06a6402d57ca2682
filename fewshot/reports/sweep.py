"""What a sweep's runs scored, in words and tables. Accuracies are (seeds, episodes), fractions of 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.evaluation.intervals import training_anew
from fewshot.evaluation.statistics import paired_difference, summarise
from fewshot.identity import pixels
from fewshot.reports.boards.leaderboard import experiment_of
from fewshot.reports.tables import DEFAULTS, head_name, markdown_text, percent, print_whole, task_name
from fewshot.runs import Run


def print_seeds(console: Console, runs: Sequence[Run]) -> None:
    """Print the average of runs that differ only in the seed, for each protocol or split that all were tested on.

    Runs that differ in more are not averaged: a line then says which.
    """
    if apart := _apart(runs):
        console.print(apart)
        return
    table = Table(title=f"{len(runs)} seeds", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("data set", "task", "accuracy (%) ± 95% CI", "each seed's"):
        table.add_column(column, no_wrap=True)

    def add(row: dict[str, Any], task: str, accuracies: list[float]) -> None:
        if len(accuracies) == len(runs):
            found = training_anew(np.array(accuracies))
            each_seeds = ", ".join(f"{100 * each:.2f}" for each in accuracies)
            table.add_row(
                f"{row['dataset']} {row['split']}", task, percent(found.estimate, found.half_width), each_seeds
            )

    for row in runs[0].rows:
        same = ("dataset", "split", "ways", "shots", "queries", "episodes_digest", "head", "transform", "solver_code")
        rows = [each for run in runs for each in run.rows if _alike(each, row, same)]
        add(row, _task(runs[0], row), [each["accuracy"] for each in rows])
    for row in runs[0].classification:
        images = ("dataset", "split", "membership")
        rows = [each for run in runs for each in run.classification if _alike(each, row, images)]
        add(row, f"{row['classes']} classes, top-1", [each["top1"] for each in rows])
    print_whole(console, table)
    console.print(
        "95% CI: Student's t over the seeds, for what training anew gives on average in these tests; each seed's own"
        " interval is above."
    )


def _alike(one: dict[str, Any], other: dict[str, Any], fields: Sequence[str]) -> bool:
    """Whether rows agree in these fields, and are of the same pixels."""
    return pixels(one) == pixels(other) and all(one.get(name) == other.get(name) for name in fields)


def _apart(runs: Sequence[Run]) -> str:
    """Why runs are not averaged, as on the leaderboard: the first that differs from the first run in more than the
    seed, and in what. "" if none does."""
    first, *others = [(run, experiment_of(run) | {"the code that trained it": run.code_digest}) for run in runs]
    for run, facts in others:
        known = first[1]
        if differs := [name for name in {**known, **facts} if known.get(name) != facts.get(name)]:
            return (
                f"The seeds are not averaged: {run.folder} differs from {first[0].folder} in {', '.join(differs)}. To"
                " get their mean, train all seeds again, into another --out."
            )
    return ""


def _task(run: Run, row: dict[str, Any]) -> str:
    """The task, and what solved it if that is not the run's own head and transform."""
    row = {"head": run.config.head} | DEFAULTS | row
    own = (row["head"], row["transform"]) == (run.config.head, run.config.transform)
    return task_name(row) + f", {head_name(row)}" * (not own)


def score(ours: np.ndarray) -> str:
    """Mean over seeds, and the interval over episodes of that mean."""
    summary = summarise(ours.mean(0))
    return percent(summary.accuracy, summary.ci95)


def difference(ours: np.ndarray, baseline: np.ndarray) -> str:
    """Paired over episodes, seeds averaged; with several seeds also each seed's own difference."""
    summary = paired_difference(ours.mean(0), baseline.mean(0))
    text = f"{100 * summary.accuracy:+.2f} ± {100 * summary.ci95:.2f}"
    if len(ours) > 1:
        text += " (" + ", ".join(f"{100 * each:+.2f}" for each in ours.mean(1) - baseline.mean(1)) + ")"
    return text


def explained(seeds: int, compared_with: str) -> str:
    """What the intervals are, below a table."""
    text = (
        "± is the field's 95% interval over test episodes, 1.96 * std / sqrt(n); differences are paired, episode by"
        f" episode, with {compared_with}."
    )
    if seeds == 1:
        return text + " One seed: what training anew would change is not in the intervals."
    return text + f" Means over {seeds} seeds; in brackets each seed's own difference."


class Bold(str):
    """A cell that a Markdown table shows in bold."""


def _cell(text: str) -> str:
    shown = markdown_text(text)
    return f"**{shown}**" if isinstance(text, Bold) else shown


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of literal text; cells that are `Bold` are in bold."""
    cells = [[*map(_cell, header)], ["---"] * len(header), *([*map(_cell, row)] for row in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)
