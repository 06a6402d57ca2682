"""Somebody else's CSV file: commas, semicolons or tabs; UTF-8 or UTF-16; folders separated by / or \\."""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
from dataclasses import dataclass

from fewshot.core.errors import UserError

_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """`line`: its number in the file, from 1. `cells`: column's name, in lower case -> what it says."""

    line: int
    cells: dict[str, str]


def read_table(origin: str, data: bytes) -> tuple[tuple[str, ...], list[Row]]:
    """(columns, rows); cells without the white space around them, blank lines left out.

    Raises UserError, which names the line, if it is not text or not a table.
    """
    text = _text(origin, data)
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count), strict=True)
    columns: tuple[str, ...] = ()
    rows = []
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            if not columns:
                columns = tuple(cell.lower() for cell in cells)
                if twice := [name for name in columns if name and columns.count(name) > 1]:
                    raise UserError(f"{origin}: the header has two columns called {twice[0]}")
                continue
            if len(cells) != len(columns):
                raise UserError(
                    f"{origin}: line {reader.line_num} has {len(cells)} columns instead of the header's {len(columns)}"
                )
            rows.append(Row(reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{origin}: line {reader.line_num} is no CSV ({error})") from None
    return columns, rows


def _text(origin: str, data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in data and not wide:
        raise UserError(f"{origin} is no text: give a CSV file, saved as UTF-8")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{origin}: line {line} is not {error.encoding.upper()}: save the file as UTF-8") from None


def path_of(text: str) -> tuple[str, ...]:
    """The names in a relative path, from the outermost folder down; é is one character, whichever way it is written."""
    parts = text.replace("\\", "/").split("/")
    return tuple(unicodedata.normalize("NFC", part) for part in parts if part not in ("", "."))
