"""The leaderboard: one row a run and protocol, ranked within (data set, ways, shots).

CSV as RFC 4180 has it (CRLF, quotes where needed), UTF-8, a header line, and these columns:

    rank                within the rows of the same dataset, ways and shots; 1 is the most accurate
    dataset, ways, shots                    what was tested (test split)
    backbone, head, regularizer             components as written on the command line
    accuracy, ci95      per cent, two decimals; half-width of the interval named in ci_method
    episodes            test episodes             seeds           training seeds behind the row
    train_seconds       wall time of training     device          where it trained
    parameters          of the embedding network  recipe, commit  how it was made
    fingerprint         of the test set's pixels  episodes_digest of the test episodes
    run                 folder, relative to --runs
    queries, ci_method, seed, steps, precision, python, torch, numpy, membership    more provenance
"""

from __future__ import annotations

import csv
import io
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.errors import UserError
from fewshot.files import writable_parent, write_atomic
from fewshot.runs import Run

COLUMNS = (
    "rank", "dataset", "ways", "shots", "backbone", "head", "regularizer", "accuracy", "ci95", "episodes", "seeds",
    "train_seconds", "device", "parameters", "recipe", "commit", "fingerprint", "episodes_digest", "run",
    "queries", "ci_method", "seed", "steps", "precision", "python", "torch", "numpy", "membership",
)  # fmt: skip


_ADDED = ("rank", "seeds", "run")  # by us; all else must come from the run folder


def gather(folder: Path) -> list[dict[str, Any]]:
    """Ranked rows of every finished run below `folder`. UserError where there is none, or one is damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of your runs with --runs")
    found = sorted(path.parent for path in folder.rglob("result.json"))
    if not found:
        raise UserError(f"no finished run below {folder}: train one first, or give another --runs")
    rows = [row for place in found for row in _rows(Run.open(place), place.relative_to(folder))]
    rows.sort(key=lambda row: (*_board(row), -row["exact"], row["run"]))
    for _, board in groupby(rows, _board):
        rank, last = 0, None
        for place, row in enumerate(board, start=1):
            rank, last = (rank, last) if row["exact"] == last else (place, row["exact"])  # equals share a rank
            row["rank"] = rank
    return rows


def _rows(run: Run, name: Path) -> list[dict[str, Any]]:
    """One row a protocol of the run. UserError where a column cannot be filled."""
    environment, result = run.environment, run.result
    rows = []
    for scored in result.get("results", [{}]):
        row = result.get("run", {}) | scored | environment.get("versions", {}) | environment
        missing = [column for column in COLUMNS if column not in row and column not in _ADDED]
        if missing:
            raise UserError(f"{run.result_path} is not a result of ours (it lacks {missing[0]}); move it out of --runs")
        exact = row["accuracy"]
        percents = {"accuracy": f"{100 * exact:.2f}", "ci95": f"{100 * row['ci95']:.2f}"}
        rows.append(row | percents | {"exact": exact, "seeds": 1, "run": name.as_posix()})
    return rows


def _board(row: dict[str, Any]) -> tuple:
    return row["dataset"], row["ways"], row["shots"]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows' COLUMNS to `path`, whole or not at all."""
    writable_parent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")  # the csv module's default dialect ends lines in CRLF
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def print_board(console: Console, rows: list[dict[str, Any]]) -> None:
    """The same for people: a table a task, with what tells the rows apart."""
    for (dataset, ways, shots), board in groupby(rows, _board):
        title = f"{dataset} {ways}-way {shots}-shot"
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        for column in ("rank", "backbone", "head", "regularizer", "steps", "accuracy (%)"):
            table.add_column(column, overflow="fold", no_wrap=column in ("rank", "steps", "accuracy (%)"))
        for row in board:
            table.add_row(
                str(row["rank"]), row["backbone"], row["head"], row["regularizer"], f"{row['steps']:,}",
                f"{row['accuracy']} ± {row['ci95']}",
            )  # fmt: skip
        console.print(table)
