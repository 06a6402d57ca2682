"""Which classes each split has, and which of their images: from a specification, a CSV file, or folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data.importers.items import Item
from fewshot.data.spec import SPLITS, DatasetSpec


@dataclass(frozen=True)
class Lists:
    """What is wanted of the sources.

    splits:    split -> its classes, sorted
    files:     (split, class) -> the names of its images, where they are listed
    by_folder: whether an image's split is the folder train/, val/ or test/ that it is below
    """

    splits: Mapping[str, tuple[str, ...]]
    files: Mapping[tuple[str, str], frozenset[str]]
    by_folder: bool = False

    @cached_property
    def classes(self) -> frozenset[str]:
        """Every class of any split."""
        return frozenset(cls for classes in self.splits.values() for cls in classes)

    def split_of(self, parts: tuple[str, ...]) -> tuple[str | None, str | None]:
        """(split, class) of a file, by its folders' names from the source down. None: they do not say it."""
        if not self.by_folder:
            return None, next((part for part in reversed(parts[:-1]) if part in self.classes), None)
        split, cls = parts[1:3] if len(parts) > 3 else ("", "")
        return (split, cls) if cls in self.splits.get(split, ()) else (None, None)


def wanted(spec: DatasetSpec, csv_file: Path | None, sources: Iterable[Path]) -> Lists:
    """The splits: those of the specification; else those of the user's CSV file; else the folders of the sources.

    Raises UserError where none of these says what they are, or a class is in two splits that must not share one.
    """
    given = csv_file or spec.splits
    if given is None:
        lists = _by_folder(sources)
    elif isinstance(given, Path):
        lists = _read_csv(given)
    else:
        lists = Lists({split: tuple(sorted(given[split])) for split in SPLITS if split in given}, {})
        if unknown := set(given) - set(SPLITS):
            raise UserError(f"{spec.name}: unknown splits {', '.join(sorted(unknown))}; valid: {', '.join(SPLITS)}")
    if not lists.classes:
        raise UserError(
            f"which classes of {spec.name} are for training, validation and test? Give --splits CSV, or keep the"
            " classes in folders train/, val/ and test/ directly below --from"
        )
    where = "the folders" if given is None else given if isinstance(given, Path) else spec.name
    _check_shared(lists, spec, str(where))
    return lists


def _by_folder(sources: Iterable[Path]) -> Lists:
    """SOURCE/train/CLASS/..., SOURCE/val/CLASS/..., SOURCE/test/CLASS/..."""
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for source in sources:
        for split in SPLITS:
            if (source / split).is_dir():
                found[split] |= {p.name for p in (source / split).iterdir() if p.is_dir() and p.name[0] != "."}
    return Lists({split: tuple(sorted(classes)) for split, classes in found.items() if classes}, {}, by_folder=True)


def _read_csv(path: Path) -> Lists:
    """Columns `split,class` (all images of a class), or `filename,label,split` (the images named).

    Raises UserError for another header or an unknown split.
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
        files: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            files.setdefault((row["split"], row["label"]), set()).add(_file_name(row))
        return Lists(_splits_of(str(path), rows, "label"), {place: frozenset(names) for place, names in files.items()})
    if {"split", "class"} <= columns:
        return Lists(_splits_of(str(path), rows, "class"), {})
    raise UserError(f"--splits {path} needs a header with columns split,class or filename,label,split, and rows below")


def _check_shared(lists: Lists, spec: DatasetSpec, where: str) -> None:
    """UserError for a class in two splits, unless the specification allows it and its images are told apart."""
    first: dict[str, str] = {}
    for split, classes in lists.splits.items():
        for cls in classes:
            if first.setdefault(cls, split) == split:
                continue
            if not spec.shared_classes:
                raise UserError(
                    f"{where}: class {cls!r} is in two splits, {first[cls]} and {split}. A few-shot data set shares no"
                    " class; one for classification says shared_classes=True in its specification"
                )
            if not lists.by_folder and (split, cls) not in lists.files:
                raise UserError(
                    f"{where}: class {cls!r} is in two splits, {first[cls]} and {split}: say which image is in which,"
                    " by a CSV file with columns filename,label,split or by folders train/, val/ and test/"
                )


def read_ravi(item: Item) -> dict[str, frozenset[str]]:
    """train.csv, val.csv or test.csv of Ravi and Larochelle: columns `filename,label`."""
    try:
        text = item.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{item.origin} begins like a list of images but is not text: fetch it again") from None
    files: dict[str, set[str]] = {}
    for row in _rows(item.origin, text):
        files.setdefault(row["label"], set()).add(_file_name(row))
    return {cls: frozenset(names) for cls, names in files.items()}


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
    return [dict(zip(header, row, strict=True)) for row in rows]


def _splits_of(origin: str, rows: list[dict[str, str]], column: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for row in rows:
        if row["split"] not in SPLITS:
            raise UserError(
                f"{origin}: unknown split {row['split']!r} of class {row[column]!r}; valid: {', '.join(SPLITS)}"
            )
        found[row["split"]].add(row[column])
    return {split: tuple(sorted(classes)) for split, classes in found.items() if classes}


def _file_name(row: dict[str, str]) -> str:
    return row["filename"].rsplit("/", 1)[-1]
