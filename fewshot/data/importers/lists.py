"""The CSV files: which split a class belongs to, and which of its images are used."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data.importers.items import Item
from fewshot.data.store import SPLITS


@dataclass(frozen=True)
class Lists:
    """`splits`: split -> its classes, sorted. `files`: class -> the names of its images, where listed.

    `per_class`: how many images every class must have, where that is known.
    """

    splits: Mapping[str, tuple[str, ...]]
    files: Mapping[str, frozenset[str]]
    per_class: int | None = None

    @cached_property
    def classes(self) -> dict[str, str]:
        """Class -> its split, split by split."""
        return {cls: split for split, classes in self.splits.items() for cls in classes}


def mini_imagenet() -> Lists:
    """Ravi and Larochelle's 64/16/20 classes of 600 images (ICLR 2017)."""
    text = (resources.files("fewshot.data") / "splits" / "mini-imagenet.csv").read_text()
    return Lists(_splits_of("mini-imagenet.csv", _rows("mini-imagenet.csv", text), "class"), {}, per_class=600)


def read_splits(path: Path) -> Lists:
    """A user's CSV: columns `split,class` (all images of a class), or `filename,label,split` (those only).

    Raises UserError for another header, an unknown split, or a class in two splits.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"--splits {path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"--splits {path} is not text: give a CSV with columns split,class") from None
    rows = _rows(str(path), text)
    columns = set(rows[0]) if rows else set()
    if {"filename", "label", "split"} <= columns:
        return Lists(_splits_of(str(path), rows, "label"), _files_of(rows))
    if {"split", "class"} <= columns:
        return Lists(_splits_of(str(path), rows, "class"), {})
    raise UserError(f"--splits {path} needs a header with columns split,class or filename,label,split, and rows below")


def read_ravi(item: Item) -> dict[str, frozenset[str]]:
    """train.csv, val.csv or test.csv of Ravi and Larochelle: columns `filename,label`."""
    try:
        text = item.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{item.origin} begins like a list of images but is not text: fetch it again") from None
    return _files_of(_rows(item.origin, text))


def _rows(origin: str, text: str) -> list[dict[str, str]]:
    reader = csv.reader(io.StringIO(text))
    try:
        header, *rows = [[cell.strip() for cell in row] for row in reader if row] or [[]]
    except csv.Error as error:
        raise UserError(f"{origin} is not a readable CSV ({error})") from None
    ragged = next((number for number, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if ragged is not None:
        raise UserError(f"{origin}: line {ragged} has not the {len(header)} columns of the header")
    header = [name.lower() for name in header]
    return [dict(zip(header, row)) for row in rows]


def _splits_of(origin: str, rows: list[dict[str, str]], column: str) -> dict[str, tuple[str, ...]]:
    split_of: dict[str, str] = {}
    for row in rows:
        cls, split = row[column], row["split"]
        if split not in SPLITS:
            raise UserError(f"{origin}: unknown split {split!r} of class {cls!r}; valid: {', '.join(SPLITS)}")
        if split_of.setdefault(cls, split) != split:
            raise UserError(f"{origin}: class {cls!r} is in two splits, {split_of[cls]} and {split}")
    found = {split: tuple(sorted(cls for cls in split_of if split_of[cls] == split)) for split in SPLITS}
    return {split: classes for split, classes in found.items() if classes}


def _files_of(rows: list[dict[str, str]]) -> dict[str, frozenset[str]]:
    files: dict[str, set[str]] = {}
    for row in rows:
        files.setdefault(row["label"], set()).add(row["filename"].rsplit("/", 1)[-1])
    return {cls: frozenset(names) for cls, names in files.items()}
