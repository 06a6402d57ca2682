"""Tables for the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from fewshot.core.console import visible
from fewshot.episodes.sampler import protocol_name
from fewshot.reports.following.progress import duration
from fewshot.runs import Run

DEFAULTS = {
    "setting": "inductive", "transform": "none", "code": "", "query_alpha": "", "regime": "", "episodes_seed": "",
}  # fmt: skip
"""What a missing field means in a few-shot row, or in a line of a leaderboard."""

_SORTED_BY = ("ways", "shots", "queries", "head")
_WIDEST = 150  # characters


def percent(accuracy: float, ci95: float) -> str:
    """`51.23 ± 0.20`: per cent, two decimals."""
    return f"{100 * accuracy:.2f} ± {100 * ci95:.2f}"


def number(text: str) -> str:
    """With thousands separated; "" if it is not known."""
    return f"{int(text):,}" if text else ""


def training_time(row: Mapping[str, Any]) -> str:
    """How long a leaderboard's row was trained; "" if nobody knows, of a network trained elsewhere."""
    seconds = float(row["train_seconds"])
    return duration(seconds) if seconds or row["steps"] else ""


def task_name(row: Mapping[str, Any]) -> str:
    """`5-way 1-shot`; with unbalanced queries, `5-way 1-shot, Dirichlet 2`; either with `, transductive` if the head
    sees all queries of a task at once, and with `, tasks of seed 7` if the list of tasks is not the usual one."""
    name = protocol_name(row["ways"], row["shots"], row["query_alpha"])
    name += f", {row['setting']}" * (row["setting"] != "inductive")
    return name + (f", tasks of seed {row['episodes_seed']}" if row["episodes_seed"] else "")


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the lines of a table are sorted by: for each data set, balanced tasks first."""
    return row["dataset"], row["split"], float(row["query_alpha"] or 0), *(row.get(key, "") for key in _SORTED_BY)


def queries_a_class(row: Mapping[str, Any]) -> str:
    """`15 queries a class`; for unbalanced tasks `15 queries a class on average`."""
    return f"{row['queries']} queries a class" + " on average" * bool(row["query_alpha"])


def head_name(row: Mapping[str, Any]) -> str:
    """`proto`, and the transform of the embeddings before it: `proto after center+l2`."""
    head = row.get("head", "")
    return head if row["transform"] == "none" else f"{head} after {row['transform']}"


def print_run(console: Console, run: Run) -> None:
    """All results of a run."""
    if rows := run.rows:
        print_results(console, "Accuracy", rows)
    if rows := run.classification:
        print_classification(console, "Classification", rows)


def print_results(console: Console, title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Result rows of one run, one line for each protocol; below them the formula of the interval.

    Head and transform are a column if rows differ in them; a row that is transductive, or of unbalanced tasks, says so
    after its task. No name is cut, even if the table is then wider than the terminal.
    """
    rows = sorted((DEFAULTS | row for row in rows), key=_place)
    heads = [head_name(row) for row in rows]
    extra = ["head"] if len(set(heads)) > 1 else []
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("data set", "task", "queries", *extra, "accuracy (%) ± 95% CI", "episodes"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("queries", "episodes") else "left")
    for row, head in zip(rows, heads, strict=True):
        table.add_row(
            f"{row['dataset']} {row['split']}", task_name(row), str(row["queries"]), *([head] if extra else []),
            percent(row["accuracy"], row["ci95"]), f"{row['episodes']:,}",
        )  # fmt: skip
    print_whole(console, table)
    methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
    drawn = ", on average where their numbers are drawn (Dirichlet)" * any(row["query_alpha"] for row in rows)
    console.print(f"95% CI: {methods} over n episodes, of this network on these images. Queries are per class{drawn}.")
    if failed := [task_name(row) for row in rows if row.get("at_chance")]:
        console.print(f"Warning: at chance, no better than guessing: {', '.join(failed)}. Did the training diverge?")


def print_classification(console: Console, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Classification rows of one run, one line for each split; below them what the interval is."""
    rows = sorted(rows, key=lambda row: (row["dataset"], row["split"]))
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("data set", "images", "top-1 accuracy (%), 95% CI", "error (%)", "top-5 (%)"):
        table.add_column(column, no_wrap=True, justify="left" if column == "data set" else "right")
    for row in rows:
        table.add_row(
            f"{row['dataset']} {row['split']}", f"{row['images']:,}", within(row["top1"], row["top1_ci95"]),
            f"{100 * row['error']:.2f}", f"{100 * row['top5']:.2f}" if "top5" in row else "-",
        )  # fmt: skip
    print_whole(console, table)
    methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
    console.print(f"CI: {methods}, of this network on other images of these classes.")
    if failed := [f"{row['dataset']} {row['split']}" for row in rows if row.get("at_chance")]:
        console.print(f"Warning: at chance, no better than guessing: {', '.join(failed)}. Did the training diverge?")
    for row in rows:
        if seen := row.get("seen_in_training", {}).get("images"):
            console.print(f"Warning: training saw {seen:,} of the images of {row['dataset']} {row['split']}.")


def print_whole(console: Console, table: Table) -> None:
    """Print a table in which nothing is cut, even if it is then wider than the terminal."""
    table.width = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.print(table)


def within(value: float, interval: Sequence[float]) -> str:
    """`91.23 (90.66 .. 91.77)`: per cent, two decimals."""
    return f"{100 * value:.2f} ({100 * interval[0]:.2f} .. {100 * interval[1]:.2f})"


def markdown_text(text: str) -> str:
    """Text that Markdown shows literally, in one line: no table cell, tag, link or formula ends or begins in it."""
    line = visible(" ".join(text.split()))
    line = re.sub(r"([\\`\[\]<>|~$]|(?<!\w)_|_(?!\w)|\*(?=\S)|(?<=\S)\*)", r"\\\1", line).replace("&", "&amp;")
    return re.sub(r"(?i)(www)\.|(https?|ftp)://", lambda found: re.sub(r"([.:])", r"\\\1", found[0]), line)


def wrap(text: str, letters: int) -> str:
    """Lines of at most `letters`, broken after a space or a sign of the component grammar if there is one."""
    lines = [""]
    for piece in re.split(r"(?<=[\s:,=/])|(?<=\+)(?=[A-Za-z_])", text):
        if len(lines[-1]) + len(piece.rstrip()) > letters and lines[-1]:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > letters:  # one piece, longer than a line
            lines[-1:] = [lines[-1][:letters], lines[-1][letters:]]
    return "\n".join(line.rstrip() for line in lines)
