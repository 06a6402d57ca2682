"""The leaderboard to read: one table for each board, in Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.reports.boards.leaderboard import Kind, Row, Score
from fewshot.reports.boards.ranking import board, tied
from fewshot.reports.boards.standing import different_code
from fewshot.reports.tables import markdown_text, task_name, wrap

MARK = "<!-- A leaderboard of fewshot: written by python -m fewshot.leaderboard -->"
_WIDEST = {"regularizer": 18, "backbone": 10, "head": 11, "classifier": 11}  # characters on the terminal
_MOST = 200  # rows of a board on the terminal


def render(rows: Sequence[Row]) -> str:
    """A Markdown document (GitHub's tables)."""
    parts = [MARK, "# Leaderboard"]
    for kind, of_a_kind in groupby(rows, lambda row: row.kind):
        parts.append(kind.about)
        for title, same_board, cells in _boards(list(of_a_kind)):
            table = [list(cells[0]), ["---:" if name in kind.numbers else "---" for name in cells[0]]]
            table += [[markdown_text(cell) for cell in line.values()] for line in cells]
            drawn = "\n".join(f"| {' | '.join(line)} |" for line in table)
            parts += [f"## {markdown_text(title)}", drawn, markdown_text(kind.how(same_board))]
    return "\n\n".join(parts) + "\n"


def print_board(console: Console, rows: Sequence[Row]) -> None:
    """The same for a terminal, where nobody reads more than _MOST rows of a board."""
    for title, same_board, cells in _boards(rows):
        kind = same_board[0].kind
        headings, alike = _telling(kind, cells)
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for name in headings:
            table.add_column(name, overflow="fold", no_wrap=name in kind.numbers)
        for line in cells[:_MOST]:
            table.add_row(*(wrap(line[name], _WIDEST.get(name, 80)) for name in headings))
        console.print(table)
        if alike:
            console.print(f"All rows: {', '.join(f'{name} {cells[0][name]}' for name in alike)}.")
        if len(cells) > _MOST:
            console.print(f"These are the first {_MOST} of {len(cells):,} rows; files have all.")
        console.print(f"{kind.how(same_board)} {_trained(cells)}")


def print_doubts(console: Console, gathered: Iterable[Score], kept: Sequence[Score]) -> None:
    """Warn of what run folders cannot prove, and of seeds that are not pooled because of their code.

    gathered: what the folders hold; kept: what the board is made of.
    """
    if unproven := dict.fromkeys(score.own["run"] for score in gathered if score.record is None):
        console.print(f"warning: the records of {', '.join(unproven)} are missing: their figures cannot be checked")
    if apart := different_code(kept):
        groups = dict.fromkeys(map(_by_code, apart))  # the same runs in several tests are said once
        console.print(f"warning: not pooled, because trained by different code: {'; '.join(groups)}")


def _by_code(scores: Iterable[Score]) -> str:
    """`a, b (code 1f2e3d4c5b6a), c (code unknown)`."""
    runs: dict[str, dict[str, None]] = {}
    for score in scores:
        runs.setdefault(score.shared["code"] or "unknown", {})[score.own["run"]] = None
    return ", ".join(f"{', '.join(names)} (code {code})" for code, names in runs.items())


def print_left_out(console: Console, replaced: Iterable[Score], elsewhere: Iterable[Score], folder: Path) -> None:
    """Say which runs below `folder` a newer one replaces, and which results are on tasks that are not the board's."""
    if names := dict.fromkeys(_place(folder, score) for score in replaced):
        console.print(f"Left out, because a newer run has the same configuration and seed: {', '.join(names)}.")
    runs: dict[str, dict[str, None]] = {}
    for score in elsewhere:
        result = f"{int(score.shared['episodes']):,} episodes of {score.shared['dataset']} {task_name(score.shared)}"
        runs.setdefault(result, {})[_place(folder, score)] = None
    if runs:
        named = "; ".join(f"{result} ({', '.join(names)})" for result, names in runs.items())
        why = "another list of tasks of the same kind is longer, or more runs share it"
        console.print(f"Left out, because {why}: {named}.")


def _place(folder: Path, score: Score) -> str:
    """Where a run is; the name of one that was read from a CSV and lies elsewhere."""
    path = folder / score.own["run"]
    return str(path) if path.is_dir() else score.own["run"]


def _boards(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row], list[dict[str, str]]]]:
    """(title, rows, their cells by heading) of every board."""
    equals = tied(rows)
    for key, group in groupby(rows, board):
        same = list(group)
        kind = same[0].kind
        yield kind.title(same[0]), same, [kind.cells(row, (key, row["rank"]) in equals) for row in same]


def _telling(kind: Kind, cells: Sequence[dict[str, str]]) -> tuple[list[str], list[str]]:
    """The headings of a board on the terminal, and those left out because all rows agree in them.

    They are the kind's own if these tell the rows apart; if not, the runs' names do.
    """
    rank, *labels, seeds, accuracy = kind.terminal
    if len({tuple(line[name] for name in labels) for line in cells}) == len(cells):
        return [*kind.terminal], []
    alike = [name for name in labels if len({line[name] for line in cells}) == 1]
    return [rank, *(name for name in labels if name not in alike), seeds, accuracy, "run"], alike


def _trained(cells: Sequence[dict[str, str]]) -> str:
    """What the rows of a board were trained on; if that differs, which run on what."""
    runs: dict[str, dict[str, None]] = {}  # one run may have rows of several heads
    for line in cells:
        runs.setdefault(line["trained on"], {})[line["run"]] = None
    if len(runs) == 1:
        return f"Trained on {next(iter(runs))}."
    return "Trained on " + "; ".join(f"{on} ({', '.join(names)})" for on, names in runs.items()) + "."
