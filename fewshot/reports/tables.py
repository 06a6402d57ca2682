"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.reports.leaderboard import DEFAULTS

_SORTED_BY = ("dataset", "split", "ways", "shots", "queries", "head")
_SPLITS = {"test": "Test accuracy", "val": "Validation accuracy", "train": "Training accuracy"}


def percent(accuracy: float, ci95: float) -> str:
    """`51.23 ± 0.20`: per cent, two decimals."""
    return f"{100 * accuracy:.2f} ± {100 * ci95:.2f}"


def accuracy_title(rows: Iterable[dict[str, Any]]) -> str:
    """`Test accuracy`, `Validation accuracy`; `Accuracy` where the rows are of several splits."""
    splits = {row["split"] for row in rows}
    return _SPLITS.get(splits.pop(), "Accuracy") if len(splits) == 1 else "Accuracy"


def print_results(console: Console, title: str | None, rows: Iterable[dict[str, Any]]) -> None:
    """Result rows of one run, one line for each protocol; below them the formula of the interval.

    Without a title it is `accuracy_title`. The head is a column where rows differ in it, and so is the transform where
    there is one, and the setting where a row is transductive.
    """
    rows = sorted((DEFAULTS | row for row in rows), key=lambda row: [row.get(key, "") for key in _SORTED_BY])
    extra = ["head"] if len({row.get("head") for row in rows}) > 1 else []
    extra += [name for name in ("transform", "setting") if any(row[name] != DEFAULTS[name] for row in rows)]
    table = Table(title=title or accuracy_title(rows), box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("data set", "task", "queries", *extra, "accuracy (%) ± 95% CI", "episodes"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("queries", "episodes") else "left")
    for row in rows:
        table.add_row(
            f"{row['dataset']} {row['split']}", f"{row['ways']}-way {row['shots']}-shot", str(row["queries"]),
            *(str(row[name]) for name in extra), percent(row["accuracy"], row["ci95"]), f"{row['episodes']:,}",
        )  # fmt: skip
    console.print(table)
    methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
    console.print(f"95% CI: {methods} over n episodes, of this network on this test set. Queries are per class.")


def wrap(text: str, letters: int) -> str:
    """Lines of at most `letters`, broken after a space or a sign of the component grammar where there is one."""
    lines = [""]
    for piece in re.split(r"(?<=[\s:,=/])|(?<=\+)(?=[A-Za-z_])", text):
        if len(lines[-1]) + len(piece.rstrip()) > letters and lines[-1]:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > letters:  # one piece, longer than a line
            lines[-1:] = [lines[-1][:letters], lines[-1][letters:]]
    return "\n".join(line.rstrip() for line in lines)
