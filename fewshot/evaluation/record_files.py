"""Files beside result.json that its rows name: written once, never replaced, checked and bounded when they are read.

A row names a file of a KIND as "KIND_file", and its SHA-256 as "KIND_sha256". Files are written first, under names that
no row has for other bytes; they count only once result.json is renamed into its place.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic
from fewshot.core.sealed import sha256
from fewshot.identity import digest
from fewshot.runs import Run

_LARGEST = 256 * 2**20  # bytes of a file, and of an array in it: those of ten million episodes
_LONGEST = 255  # bytes of a file's name: no file system has more
_KINDS = {"episodes": ".npy", "tasks": ".npz", "images": ".npz"}  # kind -> how the names of its files end
_OURS = re.compile(rf"({'|'.join(_KINDS)})-[A-Za-z0-9.,=+@_-]+\.np[yz]")


def numbers(classes: np.ndarray) -> np.ndarray:
    """Class numbers as they are kept: uint16, or uint32 if a number is larger."""
    return classes.astype(np.uint32 if classes.size and classes.max() > np.iinfo(np.uint16).max else np.uint16)


def keep(run: Run, readable: str, contents: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files of one row, by their kinds; returns what the row says of them.

    They are called KIND-NAME. NAME is `readable`, plus a digest of their content if other files have that name: no
    file is replaced, so that rows and records agree whenever the process is killed.
    """
    digests = {kind: sha256(data) for kind, data in contents.items()}
    name = re.sub(r"[^A-Za-z0-9.,=+@_-]+", "-", readable)
    for letters in (0, 8, 64):
        full = f"{name}-{digest(digests, letters)}" if letters else name
        files = {kind: f"{kind}-{full}{_KINDS[kind]}" for kind in contents}
        there = {kind for kind, file in files.items() if os.path.lexists(run.folder / file)}
        if all(_holds(run.folder / files[kind], contents[kind]) for kind in there):
            break
    for kind in contents.keys() - there:
        write_atomic(run.folder / files[kind], contents[kind])
    return {f"{kind}_file": files[kind] for kind in files} | {f"{kind}_sha256": digests[kind] for kind in files}


def forget(run: Run, rows: Iterable[dict[str, Any]]) -> None:
    """Delete the files of rows that result.json no longer has."""
    names = [f"{kind}_file" for kind in _KINDS]
    used = {row.get(name) for row in (*run.rows, *run.classification) for name in names}
    for file in {str(row.get(name)) for row in rows for name in names} - used:
        if _OURS.fullmatch(file):
            (run.folder / file).unlink(missing_ok=True)


def at_hand(folder: Path, row: dict[str, Any], kind: str) -> bool:
    """Whether a row's file of a kind is there. Raises UserError if what the row names is not a file's name."""
    return f"{kind}_file" in row and os.path.lexists(_path(folder, row, kind))


def array(folder: Path, row: dict[str, Any], kind: str) -> tuple[Path, np.ndarray]:
    """A row's .npy file of a kind, and its array. Raises UserError if it is missing, damaged or another run's."""
    path = _path(folder, row, kind)
    return path, _npy(path, _bytes(path, row.get(f"{kind}_sha256")))


def arrays(folder: Path, row: dict[str, Any], kind: str, members: Sequence[str]) -> tuple[Path, dict[str, np.ndarray]]:
    """A row's .npz file of a kind, and its arrays, which must be `members`. Raises UserError as `array` does."""
    path = _path(folder, row, kind)
    return path, _npz(path, _bytes(path, row.get(f"{kind}_sha256")), members)


def npz(**arrays: np.ndarray) -> bytes:
    """Arrays as a compressed .npz file: the same for the same arrays."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # none is called allow_pickle
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def check(path: Path, array: np.ndarray, shape: tuple[int, ...], kinds: str) -> None:
    """Raise UserError if an array does not have this shape and one of these NumPy kinds, or is not finite."""
    if array.shape != shape or array.dtype.kind not in kinds or not np.isfinite(array).all():
        raise UserError(f"{path} is not what result.json says: evaluate {path.parent} again")


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_bounded(path, _LARGEST) == data
    except (UserError, OSError):
        return False


def _path(folder: Path, row: dict[str, Any], kind: str) -> Path:
    name = row[f"{kind}_file"]
    a_name = Path(name).name == name and "\\" not in name and name not in ("", "..") and name.isprintable()
    if not a_name or len(name.encode()) > _LONGEST:
        raise UserError(f"{folder / 'result.json'} is damaged: {kind}_file {name[:_LONGEST]!r} is no file's name")
    return folder / name


def _bytes(path: Path, digest: str | None) -> bytes:
    try:
        data = read_bounded(path, _LARGEST)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: bring it back, or evaluate {path.parent} again") from None
    if digest not in (None, sha256(data)):
        raise UserError(
            f"{path} is damaged, or another run's: result.json names another sha256; restore it, or evaluate"
            f" {path.parent} again"
        )
    return data


def _npy(path: Path, data: bytes) -> np.ndarray:
    """A .npy file's array. The header promises a size, but no memory is allocated for a promise."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, in_columns, dtype = read_header[version](file)
        if dtype.hasobject or dtype.kind not in "fuib" or in_columns and len(shape) > 1:
            raise ValueError
        return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
    except Exception:  # the header may be any text, and NumPy parses it as Python
        raise _damaged(path) from None


def _npz(path: Path, data: bytes, members: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. No more of each is unpacked than is read of any file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in members):
                raise _damaged(path)
            unpacked = {}
            for name in members:
                with archive.open(f"{name}.npy") as member:
                    unpacked[name] = member.read(_LARGEST + 1)
    except UserError:
        raise
    except Exception:  # zipfile and zlib have a dozen ways to say it
        raise _damaged(path) from None
    for name, data in unpacked.items():
        if len(data) > _LARGEST:
            raise UserError(f"{path}: {name} unpacks to more than {_LARGEST:,} bytes: evaluate {path.parent} again")
    return {name: _npy(path, data) for name, data in unpacked.items()}


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: evaluate {path.parent} again")
