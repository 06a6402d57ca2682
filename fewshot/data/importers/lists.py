"""Which classes each split has, and which of their images: from a specification, a CSV file, or folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data.importers import archives
from fewshot.data.importers.items import Item, files_below, naming
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.table import Row, path_of, read_table
from fewshot.data.importers.tinyimagenet import listed_classes
from fewshot.data.names import SPLITS
from fewshot.data.spec import OF_ONE_SET, DatasetSpec

_VALIDATION = re.compile("(?!val$)(?i:val|valid|validation)")

FilePath = tuple[str, ...]
"""A file's name, after those of the folders above it, as many as were written, the outermost first."""


@dataclass(frozen=True)
class Lists:
    """What is wanted of the sources.

    splits:    split -> its classes, sorted. A class may be a path: Greek/character01 is the folder character01 in Greek
    rows:      (split, class) -> its images' paths, each with its line in the CSV file, if they are listed
    origin:    that CSV file
    by_folder: whether an image's split is the folder train/, val/ or test/ that it is below
    """

    splits: Mapping[str, tuple[str, ...]]
    rows: Mapping[tuple[str, str], Mapping[FilePath, int]] = field(default_factory=dict)
    origin: str = ""
    by_folder: bool = False

    @cached_property
    def classes(self) -> frozenset[str]:
        """Every class of any split."""
        return frozenset(cls for classes in self.splits.values() for cls in classes)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(sorted({cls.count("/") + 1 for cls in self.classes}, reverse=True))

    def classes_of(self, folders: tuple[str, ...]) -> list[tuple[str, int]]:
        """(class, its position) of each class that is among `folders`, the innermost first, the longest name first."""
        return [
            (cls, end - length)
            for end in range(len(folders), 0, -1)
            for length in self._lengths
            if length <= end and (cls := "/".join(folders[end - length : end])) in self.classes
        ]


def wanted(spec: DatasetSpec, csv_file: Path | None, sources: Iterable[Path], limits: Limits) -> Lists:
    """The splits: those of the user's CSV file; else those of the specification; else the folders of the sources.

    Raises UserError if none of these says what they are, or if a class is in two splits that must not share one.
    """
    given = csv_file or spec.splits
    if given is None and "tiny-imagenet" in spec.importers:
        classes = sorted({_class_name("wnids.txt", name) for name in listed_classes(sources, limits)})
        lists = Lists(dict.fromkeys(SPLITS, tuple(classes)))
    elif given is None:
        lists = _by_folder(sources)
    elif isinstance(given, Path):
        lists = _read_csv(given, limits)
    else:
        lists = Lists({split: tuple(sorted(given[split])) for split in SPLITS if split in given})
    if not lists.classes and "tiny-imagenet" in spec.importers:
        raise UserError(f"{spec.name}: the list of its classes, wnids.txt, is not below --from: give all of its folder")
    if not lists.classes and set(spec.importers) <= set(OF_ONE_SET):
        remedy = "Say" if spec.splits_itself else "Give --splits CSV with columns split,class, or say"
        raise UserError(
            f"which classes of {spec.name} are for training, validation and test? {remedy} it with `splits` in its"
            " specification"
        )
    if not lists.classes:
        raise UserError(
            f"which classes of {spec.name} are for training, validation and test? Give --splits CSV, or keep the"
            " classes in folders train/, val/ and test/ directly below --from"
        )
    where = "the folders" if given is None else given if isinstance(given, Path) else spec.name
    _check_shared(lists, spec, str(where))
    return lists


def _by_folder(sources: Iterable[Path]) -> Lists:
    """SOURCE/train/CLASS/..., SOURCE/val/CLASS/..., SOURCE/test/CLASS/...; CLASS may be an archive, CLASS.zip.

    UserError if the only folder that looks like val/ has another name.
    """
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    misnamed = []
    for source in sources:
        with naming(str(source)):
            if not source.is_dir():
                continue
            misnamed += [path for path in source.iterdir() if _VALIDATION.fullmatch(path.name) and path.is_dir()]
            for split in (split for split in SPLITS if (source / split).is_dir()):
                found[split] |= {_class_name(str(source / split), name) for name in _class_names(source / split)}
    if misnamed and not found["val"] and any(found.values()):
        raise UserError(f"{misnamed[0]} is no split, which are called train, val and test: call this folder val")
    return Lists({split: tuple(sorted(classes)) for split, classes in found.items() if classes}, by_folder=True)


def _class_names(folder: Path) -> Iterator[str]:
    """The names of its folders and archives, except hidden ones and what a Mac leaves in archives."""
    with naming(str(folder)):
        for path in folder.iterdir():
            if not path.name.startswith((".", "__MACOSX")) and (path.is_dir() or archives.is_called_one(path.name)):
                yield path.name if path.is_dir() else archives.stem(path.name)


def _read_csv(path: Path, limits: Limits) -> Lists:
    """Columns `split,class` (all images of a class), or `filename,label,split` (the images named).

    Raises UserError for another header, an unknown split, or a file that is listed twice.
    """
    origin = f"--splits {path}"
    if path.is_dir() or not (path.is_symlink() or path.exists()):
        raise UserError(f"{origin}: no such file")
    (item,) = files_below(str(path), limits)
    columns, rows = read_table(origin, item.read())
    by_file = {"filename", "label", "split"} <= set(columns)
    if not rows or not (by_file or {"split", "class"} <= set(columns)):
        found = f"; its header is {', '.join(columns)}" if columns else ""
        raise UserError(
            f"{origin} needs a header with columns split,class or filename,label,split, and rows below{found}"
        )
    classes: dict[str, set[str]] = {split: set() for split in SPLITS}
    files: dict[tuple[str, str], dict[FilePath, int]] = {}
    seen: dict[FilePath, tuple[str, str]] = {}
    for row in rows:
        where = f"{origin}: line {row.line}"
        place = split, cls = _split(where, row), _class_name(where, row.cells["label" if by_file else "class"])
        classes[split].add(cls)
        if not by_file:
            continue
        name = _file_path(where, row)
        if len(name) > 1 and seen.setdefault(name, place) != place:
            raise UserError(f"{where} lists {'/'.join(name)} as {split}, {cls}; before, it was {', '.join(seen[name])}")
        files.setdefault(place, {}).setdefault(name, row.line)
    return Lists({split: tuple(sorted(names)) for split, names in classes.items() if names}, files, origin)


def _split(where: str, row: Row) -> str:
    if row.cells["split"] not in SPLITS:
        raise UserError(f"{where}: unknown split {row.cells['split']!r}; valid: {', '.join(SPLITS)}")
    return row.cells["split"]


def _class_name(where: str, text: str) -> str:
    """`Greek/character01`, whichever way it is written."""
    name = "/".join(path_of(text))
    if not name or not name.isprintable() or ".." in name.split("/"):
        raise UserError(f"{where}: {text!r} is no name for a class")
    return name


def _file_path(where: str, row: Row) -> FilePath:
    path = path_of(row.cells["filename"])
    if not path or ".." in path:
        raise UserError(f"{where}: {row.cells['filename']!r} names no file; give its path below --from")
    return path


def _check_shared(lists: Lists, spec: DatasetSpec, where: str) -> None:
    """UserError for a class in two splits, unless that is allowed, and it is known which image is in which."""
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
            if not lists.by_folder and (split, cls) not in lists.rows and not set(spec.importers) <= set(OF_ONE_SET):
                how = "by a CSV file with columns filename,label,split or by folders train/, val/ and test/"
                if where == spec.name:  # whose own splits hide the others
                    how = "by splits=Path(CSV), with columns filename,label,split, or without `splits` by such folders"
                two = f"class {cls!r} is in two splits, {first[cls]} and {split}"
                raise UserError(f"{where}: {two}: say which image is in which, {how}")


def read_ravi(item: Item) -> dict[str, frozenset[str]]:
    """train.csv, val.csv or test.csv of Ravi and Larochelle, columns `filename,label`: class -> its images' names."""
    columns, rows = read_table(item.origin, item.read())
    if not {"filename", "label"} <= set(columns):
        raise UserError(f"{item.origin} begins like a list of images and has other columns: {', '.join(columns)}")
    files: dict[str, set[str]] = {}
    for row in rows:
        where = f"{item.origin}: line {row.line}"
        files.setdefault(_class_name(where, row.cells["label"]), set()).add(_file_path(where, row)[-1])
    return {cls: frozenset(names) for cls, names in files.items()}
