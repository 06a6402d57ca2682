"""The leaderboard to read: one table for each board, in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.reports.leaderboard import Row
from fewshot.reports.progress import duration
from fewshot.reports.ranking import BY_INTERVALS, PAIRED, board, tied
from fewshot.reports.tables import head_name, markdown_text, queries_a_class, task_name, wrap

MARK = "<!-- A leaderboard of fewshot: written by python -m fewshot.leaderboard -->"
WHAT = (
    "An N-way K-shot task: sort new images into N classes, after K labelled images of each. The figures are test"
    " accuracy in per cent, the mean over the episodes, ± the half-width of its 95% interval; its formula stands below"
    " each table. The interval of a row of one training seed is of this network on this test set; that of several seeds"
    " is of what training again gives on average, on this test set. Neither speaks of new images or new classes. Rows"
    " that share a rank (=) cannot be separated from the first of them."
)
_RANKED = {
    PAIRED: "a paired t-test over the episodes (Holm over all pairs); rows of several seeds by their intervals, too",
    BY_INTERVALS: "the two intervals, taken as independent",
}
_NUMBERS = ("rank", "accuracy (%)", "seeds", "steps", "time", "parameters")
_TERMINAL = ("rank", "regularizer", "backbone", "head", "steps", "seeds", "accuracy (%)")  # fits 80 columns
_WIDEST = {"regularizer": 18, "backbone": 10, "head": 11}  # characters on the terminal; longer names take more lines


def render(rows: Sequence[Row]) -> str:
    """A Markdown document (GitHub's tables)."""
    parts = [MARK, "# Leaderboard", WHAT]
    for title, same_board, cells in _boards(rows):
        table = [list(cells[0]), ["---:" if name in _NUMBERS else "---" for name in cells[0]]]
        table += [[markdown_text(cell) for cell in line.values()] for line in cells]
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in table)
        parts += [f"## {markdown_text(title)}", drawn, markdown_text(_how(same_board))]
    return "\n\n".join(parts) + "\n"


def print_board(console: Console, rows: Sequence[Row]) -> None:
    """The same for a terminal."""
    for title, same_board, cells in _boards(rows):
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for name in _TERMINAL:
            table.add_column(name, overflow="fold", no_wrap=name in _NUMBERS)
        for line in cells:
            table.add_row(*(wrap(line[name], _WIDEST.get(name, 80)) for name in _TERMINAL))
        console.print(table)
        console.print(f"{_how(same_board)} {_trained(cells)}")


def _boards(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], list[dict[str, str]]]]:
    """(title, rows, their cells by heading) of every board."""
    equals = tied(rows)
    for key, group in groupby(rows, board):
        same = list(group)
        yield board_title(same[0]), same, [_cells(row, (key, row["rank"]) in equals) for row in same]


def board_title(row: Row) -> str:
    """`mini-imagenet 5-way 1-shot`, whether it is transductive, and how its tasks differ from those of most rows."""
    name = f"{row['dataset']} {task_name(row.columns)}"
    return name if row["tasks"] == "common" else f"{name} ({row['tasks']})"


def _cells(row: Row, equal: bool) -> dict[str, str]:
    return {
        "rank": row["rank"] + "=" * equal, "regularizer": row["regularizer"], "backbone": row["backbone"],
        "head": head_name(row.columns), "seeds": row["seeds"],
        "accuracy (%)": f"{row['accuracy']} ± {row['ci95']}" + " at chance" * row.at_chance,
        "trained on": _trained_on(row),
        "steps": _number(row["steps"]), "time": duration(float(row["train_seconds"])),
        "parameters": _number(row["parameters"]), "run": row["run"],
    }  # fmt: skip


def _trained_on(row: Row) -> str:
    """The data set, and the form of the training tasks where we trained."""
    tasks = f" {row['train_ways']}-way {row['train_shots']}-shot" if row["steps"] else ""
    return row["trained_on"] + tasks


def _number(text: str) -> str:
    """With thousands separated; nothing where it is not known."""
    return f"{int(text):,}" if text else ""


def _trained(cells: Sequence[dict[str, str]]) -> str:
    """On what the rows of a board were trained; where that differs, which run on what."""
    runs: dict[str, list[str]] = {}
    for line in cells:
        runs.setdefault(line["trained on"], []).append(line["run"])
    if len(runs) == 1:
        return f"Trained on {next(iter(runs))}."
    return "Trained on " + "; ".join(f"{on} ({', '.join(names)})" for on, names in runs.items()) + "."


def _how(rows: Sequence[Row]) -> str:
    """How the figures of a board came about."""
    first = rows[0]
    methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
    return (
        f"{int(first['episodes']):,} episodes of {queries_a_class(first.columns)}. Interval: {methods}."
        f" Ranks by {_RANKED[first['rank_by']]}."
    )
