"""The store: a data set as one memory-mapped uint8 array per split, with a fingerprint.

    <root>/<dataset>/train.npy  val.npy  test.npy     (images, height, width, 3) uint8
    <root>/<dataset>/dataset.json                     classes, counts, digests, normalisation, source

If there are too many images, they stay in their files (data/image_files.py), and instead of the array there is

    <root>/<dataset>/train.txt  val.txt  test.txt     one line per image: bytes, a tab, the file's name below `files`

Images of a class are contiguous. Classes are in the order of their names, and so are a class's images if they have
names; otherwise, these are in the order of the source (docs/file-formats.md). So the same image files give the same
bytes, and the same fingerprint, whatever layout they came in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fewshot.core import sealed
from fewshot.core.errors import UserError, nearest
from fewshot.core.files import read_bounded, writable_parent
from fewshot.data import dataset_json
from fewshot.data.dataset import Dataset, Normalisation, Split
from fewshot.data.image_files import ImageFiles
from fewshot.data.names import NAME


def pixel_digest(images: np.ndarray) -> str:
    """SHA-256 of an image array's bytes."""
    return sealed.sha256(np.ascontiguousarray(images).data)


def file_digest(path: Path) -> str:
    """The pixel_digest of a .npy file's array, read through the file: a mapping would count as resident memory."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


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

    Raises UserError if it is not prepared, if dataset.json is damaged, or if an array has another shape or type than
    dataset.json says; OSError if a file cannot be opened, such as when too many are open. Pixels are not read: `verify`
    checks them when the data set is prepared again. If images are in files, the list is checked now, and each file when
    it is decoded.
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
    record = dataset_json.read(folder / "dataset.json")
    splits = {split: _opened(folder, split, entry) for split, entry in record["splits"].items()}
    own = dataset_json.normalisation_of(record)
    former = dataset_json.former_fingerprint(record["name"], record["splits"])
    return Dataset(
        record["name"], splits, record["fingerprint"], record["source"], folder, tuple(record["notes"]),
        own or normalisation, former,
    )  # fmt: skip


def _opened(folder: Path, name: str, entry: Mapping) -> Split:
    """A split as its entry in dataset.json describes it. UserError if its array or list is not what that says."""
    if "files" in entry:
        listed = _listed(folder / f"{name}.txt", entry)
        images: np.ndarray | ImageFiles = ImageFiles(Path(entry["files"]), *listed, entry["shape"][1])
    else:
        images = _mapped(folder / f"{name}.npy", entry)
    return Split(name, images, tuple(entry["classes"]), tuple(entry["counts"]))


def _mapped(path: Path, entry: Mapping) -> np.ndarray:
    """A split's array, memory-mapped. UserError if it is not what dataset.json says."""
    again = f"delete {path.parent} and run prepare again"
    if not path.is_file():
        raise UserError(f"{path} is missing or no file; {again}")
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise UserError(f"{path} cannot be read: permission denied (chmod u+r?)") from None
    except OSError:  # too many open files, a failing disk: the file itself may be whole
        raise
    except Exception as error:  # numpy reads the header as Python, where errors have many names
        raise UserError(f"{path} is damaged ({error}); {again}") from None
    if list(images.shape) != entry["shape"] or images.dtype != np.uint8 or not images.flags.c_contiguous:
        raise UserError(f"{path} does not match dataset.json; {again}")
    return images


def _listed(path: Path, entry: Mapping) -> tuple[list[str], list[int]]:
    """The names and sizes of a split's files. UserError if its list is not what dataset.json says."""
    again = f"delete {path.parent} and run prepare again"
    if not path.is_file():
        raise UserError(f"{path} is missing or no file; {again}")
    data = read_bounded(path, dataset_json.LARGEST)
    if sealed.sha256(data) != entry["sha256"]:
        raise UserError(f"{path} was changed since it was prepared; {again}")
    pairs = [line.split("\t", 1) for line in data.decode().split("\n")[:-1]]
    if len(pairs) != entry["shape"][0]:
        raise UserError(f"{path} does not match dataset.json; {again}")
    return [name for _, name in pairs], [int(size) for size, _ in pairs]


def list_of(files: ImageFiles) -> bytes:
    """The content of a split's list. Its digest is the split's, so the fingerprint covers names and sizes."""
    lines = (f"{size}\t{name}\n" for name, size in zip(files.names, files.sizes, strict=True))
    return "".join(lines).encode()


def verify(folder: Path) -> dict:
    """Check every array of a prepared folder against its digest; return dataset.json.

    Raises UserError naming the file that differs.
    """
    record = dataset_json.read(folder / "dataset.json")
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
    found = hashlib.sha256()
    with open(path or os.devnull, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        rows = 0
        for block in blocks:
            assert block.dtype == np.uint8 and block.shape[1:] == shape[1:]
            found.update(block.data)
            file.write(block.data)
            rows += len(block)
    assert rows == shape[0]
    return found.hexdigest()


def occupied(folder: Path) -> bool:
    """Whether a prepared data set is at `folder`.

    Raises UserError if something else is there, or if nothing can be written.
    """
    writable_parent(folder)
    if is_store(folder):
        return True
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no prepared data set: move it away, or choose another --data-root")
    return False
