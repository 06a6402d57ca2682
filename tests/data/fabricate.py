"""A tiny data set, and the same images in every layout that prepare reads."""

from __future__ import annotations

import csv
import errno
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign import tar_of, zip_of
from PIL import Image

from fewshot.data import DatasetSpec

SPLITS = {"train": ("n01000001", "n01000002", "n01000003"), "val": ("n02000001", "n02000002"), "test": ("n03000001",)}
PER_CLASS = 6
SIZE = 84

TINY = DatasetSpec("tiny", lists=True)
"""The data set for commands, `fabricate.TINY`: lists among the images say which of them a class has."""

Files = dict[str, dict[str, bytes]]  # class -> image name -> the file's bytes


def image_file(seed: int, size: tuple[int, int] = (SIZE, SIZE), kind: str = "PNG") -> bytes:
    """A file of smooth random colours; PNG, so that what is decoded is what was drawn."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def dataset(size: tuple[int, int] = (SIZE, SIZE)) -> Files:
    """Named as Ravi and Larochelle name theirs; the order of the names is not the order in which images are made."""
    classes = [cls for names in SPLITS.values() for cls in names]
    names = {cls: [f"{cls}{number:08d}.jpg" for number in (9, 5, 3, 12, 10, 1)] for cls in classes}
    return {
        cls: {name: image_file(1000 * row + column, size) for column, name in enumerate(names[cls])}
        for row, cls in enumerate(classes)
    }


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def split_csv(path: Path) -> Path:
    """The `--splits` file of the data set, columns split,class."""
    rows = [(split, cls) for split, classes in SPLITS.items() for cls in classes]
    return write_csv(path, ("split", "class"), rows)


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def ravi_lists(folder: Path, files: Files) -> None:
    for split, classes in SPLITS.items():
        write_csv(folder / f"{split}.csv", ("filename", "label"), [(n, cls) for cls in classes for n in files[cls]])


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def ren(files: Files, classes: tuple[str, ...]) -> dict:
    """A split as learn2learn and Ren keep it."""
    named = [(cls, data) for cls in classes for _, data in sorted(files[cls].items())]
    return {
        "image_data": np.stack([pixels(data) for _, data in named]),
        "class_dict": {cls: [row for row, (own, _) in enumerate(named) if own == cls] for cls in classes},
    }


def metaoptnet(files: Files, classes: tuple[str, ...], first: int) -> dict:
    """A split as MetaOptNet keeps it: class numbers go on from split to split, and images are not in order of class."""
    named = [(cls, data) for cls in classes for _, data in sorted(files[cls].items())]
    named = [named[row] for start in range(PER_CLASS) for row in range(start, len(named), PER_CLASS)]
    numbers = {cls: first + row for row, cls in enumerate(classes)}
    return {
        "data": np.stack([pixels(data) for _, data in named]),
        "labels": [numbers[cls] for cls, _ in named],
        "catname2label": numbers,
    }


def class_zips(folder: Path, files: Files) -> None:
    for cls, images in files.items():
        write(folder / f"images/{cls}.zip", zip_of(images))


def class_tars(folder: Path, files: Files) -> None:
    for cls, images in files.items():
        write(folder / f"{cls}.tar", tar_of({f"{cls}/{name}": data for name, data in images.items()}))


def class_tar_gz(folder: Path, files: Files) -> None:
    for cls, images in files.items():
        write(folder / f"{cls}.tar.gz", tar_of(images, "w:gz"))


def misnamed_archives(folder: Path, files: Files) -> None:
    """Tars that are called .zip and zips that are called .tar."""
    for number, (cls, images) in enumerate(files.items()):
        write(folder / (f"{cls}.zip" if number % 2 else f"{cls}.tar"), (tar_of if number % 2 else zip_of)(images))


def class_folders(folder: Path, files: Files) -> None:
    for cls, images in files.items():
        for name, data in images.items():
            write(folder / cls / name, data)


def split_folders(folder: Path, files: Files) -> None:
    for split, classes in SPLITS.items():
        class_folders(folder / split, {cls: files[cls] for cls in classes})


def flat_with_lists(folder: Path, files: Files) -> None:
    for images in files.values():
        for name, data in images.items():
            write(folder / "images" / name, data)
    ravi_lists(folder, files)


def one_zip(folder: Path, files: Files) -> None:
    members = {f"set/images/{name}": data for images in files.values() for name, data in images.items()}
    write(folder / "everything.zip", zip_of(members))


def tar_of_tars(folder: Path, files: Files) -> None:
    """As ILSVRC2012_img_train.tar is made; a class that is not ours is not even opened."""
    other = {"n09999999.tar": tar_of({"n09999999_1.JPEG": bytes(5000)})[:1000]}
    write(folder / "train.tar", tar_of({f"{cls}.tar": tar_of(images) for cls, images in files.items()} | other))


def ren_pickles(folder: Path, files: Files) -> None:
    for split, classes in SPLITS.items():
        write(folder / f"mini-imagenet-cache-{split}.pkl", pickle.dumps(ren(files, classes), protocol=4))


def metaoptnet_pickles(folder: Path, files: Files) -> None:
    first = 0
    for split, classes in SPLITS.items():
        content = metaoptnet(files, classes, first)
        first += len(classes)
        write(folder / f"miniImageNet_category_split_{split}.pickle", pickle.dumps(content, protocol=2))


def raw_ilsvrc(folder: Path, files: Files) -> None:
    """ImageNet's own names and more images than are listed; the lists count the files in numeric order."""
    for row, (cls, images) in enumerate(files.items()):
        for place in range(1, 15):
            data = images.get(f"{cls}{place:08d}.jpg") or image_file(90_000 + 100 * row + place)
            write(folder / "train" / cls / f"{cls}_{7 * place}.JPEG", data)  # _7 to _98: _14 sorts before _7 as text
    write(folder / "train/n09999999/n09999999_1.JPEG", image_file(1))  # a class that is not ours
    ravi_lists(folder, files)


LAYOUTS: dict[str, Callable[[Path, Files], None]] = {
    layout.__name__: layout
    for layout in (
        class_zips, class_tars, class_tar_gz, misnamed_archives, class_folders, split_folders, flat_with_lists,
        one_zip, tar_of_tars, ren_pickles, metaoptnet_pickles, raw_ilsvrc,
    )
}  # fmt: skip


class Python2(pickle._Pickler):
    """Writes as Python 2's cPickle, which made the archive: strings are bytes."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file) -> None:
        super().__init__(file, protocol=2)

    def save_bytes(self, data) -> None:
        data = data.encode("latin1") if isinstance(data, str) else data
        short = len(data) < 256
        self.write((b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data)
        self.memoize(data)

    dispatch[bytes] = dispatch[str] = save_bytes


def python2(content: dict) -> bytes:
    file = io.BytesIO()
    Python2(file).dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder one that may not be read, whoever runs the tests: nothing is closed to root."""
    for name in ("scandir", "listdir"):
        theirs = getattr(os, name)

        def refusing(path=".", theirs=theirs):
            if os.path.realpath(path) == os.path.realpath(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return theirs(path)

        monkeypatch.setattr(os, name, refusing)
