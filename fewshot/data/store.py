"""The store: a data set as one memory-mapped uint8 array a split, fingerprinted.

    <root>/<dataset>/train.npy  val.npy  test.npy     (images, height, width, 3) uint8
    <root>/<dataset>/dataset.json                     classes, counts, digests, normalisation, source

Where the images are too many, they stay in their files (data/image_files.py), and instead of the array there is

    <root>/<dataset>/train.txt  val.txt  test.txt     a line an image: bytes, a tab, the file's name below `files`

Images of a class are contiguous. Classes are in the order of their names; where a class's images have names, they are
in the order of these, else as the source has them (docs/file-formats.md). So the same image files give the same bytes,
and the same fingerprint, whatever layout they came in.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError, nearest
from fewshot.core.files import read_bounded, writable_parent, write_atomic
from fewshot.data.channels import Channels, Triple
from fewshot.data.image_files import ImageFiles
from fewshot.data.names import NAME, SPLITS

FORMAT = 2  # of dataset.json; in format 1 the fingerprint covered the data set's name, too
_LARGEST_RECORD = 256 << 20  # bytes of a dataset.json: a million copies are listed in so many
Normalisation = tuple[Triple, Triple]
"""(mean, std) of each channel, in [0, 1]."""


@dataclass(frozen=True)
class Split:
    """One split: `images` (N, H, W, 3) uint8, and how many consecutive ones each class owns."""

    name: str
    images: np.ndarray | ImageFiles
    classes: tuple[str, ...]
    counts: tuple[int, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """(C,) int64: index of each class's first image."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64: class number of each image."""
        return np.repeat(np.arange(len(self.classes)), self.counts)

    @cached_property
    def membership(self) -> str:
        """Digest of class names, their order and image counts: what decides the episodes."""
        facts = [list(self.classes), [int(count) for count in self.counts]]
        return _sha256(json.dumps(facts, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Dataset:
    """A data set, opened. `fingerprint` identifies its classes and pixels, whatever it is called; `former_fingerprint`
    its name as well: it stands in results and run folders made before fingerprints left out the name.

    `normalisation`: its (mean, std) where they are known; else they are computed when they are asked for.
    """

    name: str
    splits: Mapping[str, Split]
    fingerprint: str
    source: str
    root: Path | None = None
    notes: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    former_fingerprint: str = ""

    def is_known_as(self, fingerprint: str | None) -> bool:
        """Whether a result or a run folder with this fingerprint, of today's kind or the former, is of this data."""
        return bool(fingerprint) and fingerprint in (self.fingerprint, self.former_fingerprint)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What results and run folders say of it, both kinds by their names; `identity.pixels` reads it."""
        former = {"former_fingerprint": self.former_fingerprint} if self.former_fingerprint else {}
        return {"fingerprint": self.fingerprint} | former

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise UserError(f"data set {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    @property
    def shared_classes(self) -> bool:
        """Whether all splits have the same classes: a set for classification, not for few-shot learning."""
        return len({split.classes for split in self.splits.values()}) == 1 and len(self.splits) > 1

    @property
    def image_size(self) -> int:
        """Height (= width) of every image, in pixels."""
        return next(iter(self.splits.values())).images.shape[1]

    @property
    def mean(self) -> Triple:
        """Mean of each channel in [0, 1]: the field's, or the training split's. UserError if it has no such split."""
        return self._statistics[0]

    @property
    def std(self) -> Triple:
        """Standard deviation of each channel in [0, 1], likewise; at least 1/255."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> Normalisation:
        if self.normalisation:
            return self.normalisation
        channels, images = Channels(), self["train"].images
        assert isinstance(images, np.ndarray), "a data set of files has its normalisation from its specification"
        channels.add(images)
        return channels.statistics()


def fingerprint(entries: Mapping[str, Mapping]) -> str:
    """Digest over each split's classes, counts and array digest (`entries` as in dataset.json)."""
    return _sha256(json.dumps(_facts(entries), separators=(",", ":")).encode())


def former_fingerprint(name: str, entries: Mapping[str, Mapping]) -> str:
    """The same, over the data set's name as well: that of stores of format 1, and of what was made from them."""
    return _sha256(json.dumps([name, _facts(entries)], separators=(",", ":")).encode())


def _facts(entries: Mapping[str, Mapping]) -> list:
    return [[split, e["classes"], e["counts"], e["shape"], e["sha256"]] for split, e in entries.items()]


def digest(data: bytes) -> str:
    """SHA-256 of the list of a split's files."""
    return _sha256(data)


def pixel_digest(images: np.ndarray) -> str:
    """SHA-256 of an image array's bytes."""
    return _sha256(np.ascontiguousarray(images).data)


def file_digest(path: Path) -> str:
    """The pixel_digest of a .npy file's array, read through the file: a mapping would count as resident memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def prepared(root: str | os.PathLike) -> list[str]:
    """Names of the data sets under `root`."""
    found = (index.parent.name for index in Path(root).glob("*/dataset.json"))
    return sorted(name for name in found if NAME.fullmatch(name))  # not those that are being made


def is_store(folder: Path) -> bool:
    """Whether a prepared data set is at `folder`."""
    return (folder / "dataset.json").is_file()


def open_store(
    name: str,
    root: str | os.PathLike,
    *,
    normalisation: Normalisation | None = None,
    asked: str | None = None,
    known: Iterable[str] = (),
) -> Dataset:
    """Open a prepared data set, memory-mapped.

    normalisation: that of the data set's specification, for a store that was written before stores held their own.
    asked, known: for messages, the name as the user wrote it, and the names that may have been meant.

    Raises UserError where it is not prepared, where dataset.json is damaged, and where an array has another shape or
    type than it says; OSError where a file cannot be opened, as with too many open. Pixels are not read: `verify`
    checks them, which preparing again does. Of images in their files, the list is checked, and each file when it is
    decoded.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a data set: letters, digits and . _ - only")
    folder = Path(root) / name
    if not is_store(folder):
        near = nearest(name, known)
        raise UserError(
            f"data set {name!r} is not prepared under {Path(root)}: run"
            f" python -m fewshot.prepare {asked or name} --from PATH{'' if asked else ' --splits CSV'}"
            f" --data-root {Path(root)}" + f" (or did you mean {near!r}?)" * (near not in (None, name))
        )
    record = read_record(folder / "dataset.json")
    splits = {}
    for split, entry in record["splits"].items():
        if "files" in entry:
            files = ImageFiles(Path(entry["files"]), *_listed(folder / f"{split}.txt", entry), entry["shape"][1])
            splits[split] = Split(split, files, tuple(entry["classes"]), tuple(entry["counts"]))
            continue
        path = folder / f"{split}.npy"
        if not path.is_file():
            raise UserError(f"{path} is missing or no file; delete {folder} and run prepare again")
        try:
            images = np.lib.format.open_memmap(path, mode="r")
        except PermissionError:
            raise UserError(f"{path} cannot be read: permission denied (chmod u+r?)") from None
        except OSError:  # too many open files, a failing disk: the file itself may be whole
            raise
        except Exception as error:  # numpy reads the header as Python, and what is wrong there has many names
            raise UserError(f"{path} is damaged ({error}); delete {folder} and run prepare again") from None
        if list(images.shape) != entry["shape"] or images.dtype != np.uint8 or not images.flags.c_contiguous:
            raise UserError(f"{path} does not match dataset.json; delete {folder} and run prepare again")
        splits[split] = Split(split, images, tuple(entry["classes"]), tuple(entry["counts"]))
    return Dataset(
        record["name"], splits, record["fingerprint"], record["source"], folder, tuple(record["notes"]),
        normalisation_of(record) or normalisation, former_fingerprint(record["name"], record["splits"]),
    )  # fmt: skip


def _listed(path: Path, entry: Mapping) -> tuple[list[str], list[int]]:
    """The names and sizes of a split's files. UserError where its list is not what dataset.json says."""
    again = f"delete {path.parent} and run prepare again"
    if not path.is_file():
        raise UserError(f"{path} is missing or no file; {again}")
    data = read_bounded(path, _LARGEST_RECORD)
    if _sha256(data) != entry["sha256"]:
        raise UserError(f"{path} was changed since it was prepared; {again}")
    pairs = [line.split("\t", 1) for line in data.decode().split("\n")[:-1]]
    if len(pairs) != entry["shape"][0]:
        raise UserError(f"{path} does not match dataset.json; {again}")
    return [name for _, name in pairs], [int(size) for size, _ in pairs]


def list_of(files: ImageFiles) -> bytes:
    """What stands in TRAIN.txt: its digest is the split's, so that the fingerprint covers names and sizes."""
    lines = (f"{size}\t{name}\n" for name, size in zip(files.names, files.sizes, strict=True))
    return "".join(lines).encode()


def read_record(index: Path) -> dict:
    """dataset.json as a dict, its fingerprint of today's kind; UserError where it is not one of ours."""
    try:
        record = json.loads(read_bounded(index, _LARGEST_RECORD))
        entries = record["splits"]
        _check(record)
        now, former = fingerprint(entries), former_fingerprint(record["name"], entries)
        known = (record["format"], record["fingerprint"]) in ((FORMAT, now), (1, former))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:80]}"
        raise UserError(f"{index} is damaged ({why}); delete {index.parent} and run prepare again") from None
    if not known:
        raise UserError(f"{index} is of another format or was edited; delete {index.parent} and run prepare again")
    return record | {"fingerprint": now}


def _check(record: Mapping) -> None:
    """ValueError, KeyError or TypeError where a dataset.json does not hold what we write into one."""
    for key, kind in (("name", str), ("source", str), ("notes", list), ("details", dict), ("splits", dict)):
        if not isinstance(record[key], kind):
            raise TypeError(f"{key} is no {kind.__name__}")
    if not NAME.fullmatch(record["name"]) or not all(isinstance(note, str) for note in record["notes"]):
        raise ValueError("name or notes")
    if not record["splits"] or not set(record["splits"]) <= set(SPLITS):
        raise ValueError(f"splits {', '.join(record['splits'])}")
    sides = set()
    for split, entry in record["splits"].items():
        classes, counts, shape = entry["classes"], entry["counts"], entry["shape"]
        if not all(isinstance(each, list) for each in (classes, counts, shape)):
            raise TypeError(f"{split}'s classes, counts or shape are no lists")
        if not all(isinstance(cls, str) for cls in classes) or len(set(classes)) < len(classes):
            raise ValueError(f"{split}'s classes")
        if not all(type(count) is int and count > 0 for count in (*counts, *shape)) or len(counts) != len(classes):
            raise ValueError(f"{split}'s counts")
        if len(shape) != 4 or shape[0] != sum(counts) or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"{split}'s shape {shape}")
        if not isinstance(entry["sha256"], str) or not isinstance(entry.get("files", ""), str):
            raise TypeError(f"{split}'s sha256 or files")
        sides.add(shape[1])
    if len(sides) > 1:
        raise ValueError(f"images of {' and '.join(map(str, sorted(sides)))} px")
    normalisation_of(record)


def normalisation_of(record: Mapping) -> Normalisation | None:
    """(mean, std) of a dataset.json; None where an older version wrote it. ValueError where they are not valid."""
    if "normalisation" not in record:
        return None
    mean, std = (tuple(map(float, record["normalisation"][key])) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError(f"normalisation {record['normalisation']}")
    return mean, std


def verify(folder: Path) -> dict:
    """Check every array of a prepared folder against its digest; return dataset.json.

    Raises UserError naming the file that differs.
    """
    record = read_record(folder / "dataset.json")
    for name, split in open_store(folder.name, folder.parent).splits.items():
        if isinstance(split.images, ImageFiles):
            split.images.check()
            continue
        path = folder / f"{name}.npy"
        if file_digest(path) != record["splits"][name]["sha256"]:
            raise UserError(f"{path} was changed since it was prepared; delete {folder} and run prepare again")
    return record


def write_array(path: Path | None, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> str:
    """Write uint8 blocks, one after the other, as one .npy file of `shape`; return their pixel_digest.

    Through the file, not a mapping: a full disk is then an OSError, not a SIGBUS. With `path` None nothing is written.
    """
    digest = hashlib.sha256()
    with open(path or os.devnull, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        rows = 0
        for block in blocks:
            assert block.dtype == np.uint8 and block.shape[1:] == shape[1:]
            digest.update(block.data)
            file.write(block.data)
            rows += len(block)
    assert rows == shape[0]
    return digest.hexdigest()


def write_record(
    folder: Path,
    name: str,
    entries: Mapping[str, Mapping],
    source: str,
    notes: list[str],
    details: Mapping,
    normalisation: Normalisation | None = None,
) -> dict:
    """Write dataset.json beside the arrays, and return it. `entries`: split -> classes, counts, shape, sha256."""
    record = {
        "format": FORMAT,
        "name": name,
        "fingerprint": fingerprint(entries),
        "source": source,
        "notes": notes,
        "splits": entries,
        "details": details,
    }
    if normalisation:
        record["normalisation"] = {"mean": normalisation[0], "std": normalisation[1]}
    (folder / "dataset.json").write_bytes(_written(record))
    return record


def move_files(folder: Path, base: str) -> None:
    """Let a store's dataset.json say that its files are below `base`: no fingerprint covers that."""
    record = read_record(folder / "dataset.json")
    entries = {split: {**entry, "files": base} for split, entry in record["splits"].items()}
    write_atomic(folder / "dataset.json", _written(record | {"splits": entries}))


def _written(record: Mapping) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def occupied(folder: Path) -> bool:
    """Whether a prepared data set is at `folder`.

    Raises UserError where something else is there, or where nothing can be written.
    """
    writable_parent(folder)
    if is_store(folder):
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no prepared data set: move it away, or choose another --data-root")
    return False


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
