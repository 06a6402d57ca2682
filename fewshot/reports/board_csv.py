"""The leaderboard as CSV: RFC 4180 (CRLF, quotes where needed), UTF-8, a header line, reports/leaderboard.py's COLUMNS.

It can be read back: each_run holds what every run adds, key vouches for what they share, and the rest follows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot.core.errors import UserError
from fewshot.reports.leaderboard import COLUMNS, OWN, RANKED, SHARED, Row, Score, digest

MARK = "rank,dataset,ways,shots,backbone,head,regularizer,accuracy,ci95,"  # how every version's header begins


def render(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # whose default dialect ends lines in CRLF
    writer.writerow(COLUMNS)
    writer.writerows([row[column] for column in COLUMNS] for row in rows)
    return text.getvalue()


def read(path: Path) -> list[Score]:
    """The scores behind the rows of a CSV of ours; none where there is no such file.

    UserError where it is another's, another version's, or damaged: every row must follow from its key and each_run.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error):
        raise _damaged(path, "it is not CSV") from None
    if not lines:
        return []
    if tuple(lines[0]) != COLUMNS:
        raise UserError(f"{path} has not the columns of this version's leaderboard; give another --csv")
    return [score for number, cells in enumerate(lines[1:], start=1) for score in _scores(path, number, cells)]


def _scores(path: Path, number: int, cells: list[str]) -> list[Score]:
    if len(cells) != len(COLUMNS):
        raise _damaged(path, f"row {number} has {len(cells)} fields, not {len(COLUMNS)}")
    written = dict(zip(COLUMNS, cells, strict=True))
    shared = {column: written[column] for column in SHARED}
    try:
        scores = [Score(written["key"], shared, _own(value)) for value in json.loads(written["each_run"])]
        columns = Row.of(scores).columns
    except (ValueError, TypeError, LookupError):
        raise _damaged(path, f"row {number} has an each_run that is not ours") from None
    if not written["key"].startswith(digest(shared)):
        raise _damaged(path, f"row {number} does not agree with its key")
    for column in COLUMNS:
        if column not in RANKED and columns[column] != written[column]:
            raise _damaged(path, f"{column} of row {number} does not follow from its each_run")
    return scores


def _own(value: dict[str, Any]) -> dict[str, Any]:
    return {column: value[column] for column in OWN}


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; restore it, or give another --csv")
