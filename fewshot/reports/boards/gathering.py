"""From run folders to the leaderboard's scores. A damaged run is left out and named; it does not stop the others."""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.core.console import visible
from fewshot.core.errors import UserError
from fewshot.reports.boards.leaderboard import Kind, Score
from fewshot.reports.boards.of_images import IMAGES
from fewshot.reports.boards.of_tasks import FEWSHOT
from fewshot.runs import Run

KINDS: tuple[Kind, ...] = (FEWSHOT, IMAGES)
"""In the order in which they are shown."""


def gather(folder: Path) -> tuple[list[Score], dict[str, str]]:
    """The scores of all runs below `folder` with results on test images: one for each question and list of tasks.

    Also returns the runs that could not be read, by name, and why. Raises UserError if no run can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of your runs with --runs")
    names = _with(folder, "result.json")
    scores, damaged = [], {}
    for name in names:
        shown = _named(folder, name)
        try:
            run = Run.open(folder / name)
            scores += [_written(score) for kind in KINDS for score in kind.scores(run, shown)]
        except UserError as error:
            damaged[shown] = str(error)
    if not scores and damaged:
        raise UserError(f"no run below {folder} can be read: {next(iter(damaged.values()))}")
    if not scores and names:
        raise UserError(f"no run below {folder} has a result on test images: evaluate one, or give another --runs")
    if not scores:
        raise UserError(f"no finished run below {folder}: train one first, or give another --runs")
    return scores, damaged


def _written(score: Score) -> Score:
    """The score itself. UserError if one of its values cannot be written into a file."""
    for name, value in {**score.shared, **score.own}.items():
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise UserError(f"its {name}, {value!r}, is no text") from None
    return score


def unfinished(folder: Path) -> list[str]:
    """Names of the run folders below `folder` that have no results yet."""
    names = _with(folder, "config.json")
    return [_named(folder, name) for name in names if not (folder / name / "result.json").is_file()]


def _named(folder: Path, name: str) -> str:
    """What a run below `folder` is called: by its path from there, or by its own name if it is that folder."""
    return visible(name if name != "." else os.path.basename(os.path.realpath(folder)))


def _with(folder: Path, file: str) -> list[str]:
    """Names of the folders below `folder` that have such a file, without hidden ones, such as those being made.

    Links are followed. A folder that several paths lead to has one name, the one without links if there is one. So
    links that form a loop end.
    """
    found, seen, ways = [], set(), [folder]
    for way in ways:  # grows meanwhile
        for place, folders, files in os.walk(way):
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            ways += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            found += [Path(place).relative_to(folder)] * (file in files)
    return [place.as_posix() for place in sorted(found)]
