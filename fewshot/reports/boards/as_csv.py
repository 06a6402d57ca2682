"""One kind's rows as CSV: RFC 4180 (CRLF, quotes where needed), UTF-8, a header line, the kind's columns.

Optional columns are there only if a row has them.

A cell that begins like a formula, with = + - @, gets an apostrophe before it; reading removes it. Numbers get none.

The file can be read back: each_run holds what every run adds, key vouches for what they share, and the rest follows.

Versions. A few-shot file of version 1 ends with each_run; version 2 adds setting, transform, code and csv_version.
Rows of version 1 are read and kept, as inductive and without a transform, and their csv_version stays 1. Their keys
include the recipe's name and cannot be made again without the run folders, so they are never pooled with rows of
version 2.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded
from fewshot.identity import digest
from fewshot.reports.boards.leaderboard import RANKED, VERSION, Kind, Row, Score, columns_digest, columns_of

_LARGEST = 2**30  # bytes
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # also with apostrophes before it: so it can be read back
_NUMBER = re.compile(r"-\d+(\.\d+)?")


def render(kind: Kind, rows: Sequence[Row]) -> str:
    """The whole file as text; all `rows` are of the kind."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its default dialect ends lines in CRLF
    columns = columns_of(kind, rows)
    writer.writerow(columns)
    writer.writerows([_inert(row[column]) for column in columns] for row in rows)
    return text.getvalue()


def read(kind: Kind, path: Path) -> list[Score]:
    """The scores behind the rows of one of our CSV files, of this version or an older one; none if there is no file.

    Raises UserError if the file is not ours, is of a newer version, or is damaged: every row must follow from its key
    and each_run.
    """
    usual = csv.field_size_limit(_LARGEST)  # each_run of many seeds outgrows the usual 131,072 characters
    try:
        lines = list(csv.reader(io.StringIO(read_bounded(path, _LARGEST).decode(), newline=""), strict=True))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error):
        raise _damaged(path, "it is not CSV") from None
    finally:
        csv.field_size_limit(usual)
    if not lines:
        return []
    header = tuple(lines[0])
    required = tuple(column for column in header if column not in kind.optional)
    usual_columns = tuple(column for column in kind.columns if column not in kind.optional)
    known = [usual_columns, *([kind.former.columns] if kind.former else [])]
    if len(set(header)) < len(header) or required not in known:
        raise UserError(
            f"{path} has other columns than a leaderboard of version {_versions(kind)}; a newer fewshot may read it;"
            " give another --csv"
        )
    return [score for number, cells in enumerate(lines[1:], 1) for score in _scores(kind, path, header, number, cells)]


def _versions(kind: Kind) -> str:
    return f"1 or {VERSION}" if kind.former else VERSION


def _scores(kind: Kind, path: Path, header: tuple[str, ...], number: int, cells: list[str]) -> list[Score]:
    if len(cells) != len(header):
        raise _damaged(path, f"row {number} has {len(cells)} fields, not {len(header)}")
    former = kind.former
    written = dict(former.filled if former else {}) | dict(zip(header, map(_plain, cells), strict=True))
    version, shared = written["csv_version"], {column: written[column] for column in kind.shared}
    if version not in (("1", VERSION) if former else (VERSION,)):
        raise _damaged(path, f"row {number} has csv_version {version}, not {_versions(kind)}")
    if version == "1" and former:
        agreed = digest({column: written[column] for column in former.shared})
    else:
        agreed = columns_digest(kind, shared)
    of_version_1 = former is not None and header == former.columns
    common = {"recipe": written["recipe"]} if of_version_1 else {}  # then a column of the row alone
    try:
        own = [_own(kind, common | value) for value in json.loads(written["each_run"])]
        scores = [Score(kind, written["key"], shared, each, version) for each in own]
        if len({score.own["seed"] for score in scores}) < len(scores):  # as sweeps once wrote it
            raise UserError(f"{path}: row {number} counts one seed twice; write the file again from the run folders")
        columns = Row.of(scores).columns
    except UserError:
        raise
    except (ValueError, TypeError, LookupError):
        raise _damaged(path, f"row {number} has an each_run that is not ours") from None
    if not written["key"].startswith(f"{agreed}-"):
        raise _damaged(path, f"row {number} does not agree with its key")
    derived = set(header) - set(RANKED) - ({"each_run"} if of_version_1 else set())
    for column in header:
        if column in derived and columns[column] != written[column]:
            raise _damaged(path, f"{column} of row {number} does not follow from its each_run")
    return scores


def _inert(cell: str) -> str:
    """The cell, with an apostrophe before it if it is like a formula: no spreadsheet takes it for one."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def _plain(cell: str) -> str:
    """What `_inert` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def _own(kind: Kind, value: dict[str, Any]) -> dict[str, Any]:
    datetime.datetime.fromisoformat(value["started"])  # the one value that no column follows from
    return {column: value[column] for column in kind.own}


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; restore it, or give another --csv")
