"""The data sets of plain classification: small copies in their true formats, against torchvision's own readers."""

from __future__ import annotations

import csv
import gzip
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
import scipy.io
import torchvision.datasets as theirs
from commands import one_line_error
from fabricate import idx, python2
from PIL import Image

from fewshot import prepare
from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data import Dataset, open_dataset, specs
from fewshot.data.importers.items import files_below
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.matlab import read_arrays
from fewshot.data.specs import cifar_100

# The specifications unchanged, except for fewer images.
SMALLER = """
import dataclasses
from fewshot.data.specs import cifar_10, cifar_100, mnist, svhn, tiny_imagenet

def few(spec, **counts):
    return dataclasses.replace(spec, images_per_class=counts, images=None)

CIFAR_10 = few(cifar_10.SPEC, train=4, val=3, test=2)
CIFAR_100 = few(cifar_100.SPEC, train=3, val=2, test=2)
MNIST = few(mnist.SPEC, val=2)
SVHN = few(svhn.SPEC, val=2)
TINY_IMAGENET = few(tiny_imagenet.SPEC, train=3, val=2, test=2)
"""


@pytest.fixture(autouse=True)
def smaller_sets(tmp_path, monkeypatch) -> Iterator[None]:
    (tmp_path / "smaller_sets.py").write_text(SMALLER)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("smaller_sets", None)


def call(name: str, source: Path) -> int:
    dotted = f"smaller_sets.{name.upper().replace('-', '_')}"
    return run(prepare.main, [dotted, "--from", str(source), "--data-root", str(source.parent / "root")])


def prepared(name: str, source: Path) -> Dataset:
    assert call(name, source) == 0
    return open_dataset(name, source.parent / "root")


def random_labels(classes: int, counts: list[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), counts))


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def check(dataset: Dataset, train, test, names, held_out: int) -> None:
    """train, test: (pixels (N, H, W, 3), labels (N,)) in the order of the files; names: of the classes, by label."""
    assert dataset["train"].classes == dataset["val"].classes == dataset["test"].classes == tuple(sorted(names))
    for place, cls in enumerate(dataset["train"].classes):
        of_class = train[0][train[1] == list(names).index(cls)]
        expected = {"train": of_class[:-held_out], "val": of_class[-held_out:]}
        expected["test"] = test[0][test[1] == list(names).index(cls)]
        for split, images in expected.items():
            start, count = dataset[split].starts[place], dataset[split].counts[place]
            assert np.array_equal(dataset[split].images[start : start + count], images), (split, cls)


# ---- CIFAR


def cifar_batch(labels: np.ndarray, key: str, seed: int) -> dict:
    data = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), np.uint8)
    names = [f"name_s_{number:06d}.png" for number in reversed(range(len(labels)))]
    return {"batch_label": f"batch {seed}", key: labels.tolist(), "data": data, "filenames": names}


def cifar(folder: Path, name: str) -> Path:
    """The folder that the archive unpacks to, with the other files in it."""
    ten = name == "cifar-10"
    below = folder / ("cifar-10-batches-py" if ten else "cifar-100-python")
    classes = list(specs.get(name).splits["train"])
    labels = random_labels(len(classes), [7 if ten else 5] * len(classes), 0)
    key, test = ("labels", "test_batch") if ten else ("fine_labels", "test")
    parts = np.array_split(labels, 5) if ten else [labels]
    for number, part in enumerate(parts, 1):
        fab.write(below / (f"data_batch_{number}" if ten else "train"), python2(cifar_batch(part, key, number)))
    content = cifar_batch(random_labels(len(classes), [2] * len(classes), 1), key, 9)
    fab.write(below / test, python2(content))
    meta = {"label_names" if ten else "fine_label_names": classes, "num_vis": 3072}
    fab.write(below / ("batches.meta" if ten else "meta"), python2(meta))
    fab.write(below / "readme.html", b"<meta HTTP-EQUIV='REFRESH'>")
    return folder


@pytest.mark.parametrize(("name", "reader"), [("cifar-10", theirs.CIFAR10), ("cifar-100", theirs.CIFAR100)])
def test_cifar_is_what_torchvision_reads(name, reader, tmp_path, monkeypatch):
    dataset = prepared(name, cifar(tmp_path / "source", name))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)  # of the true files
    parts = [reader(str(tmp_path / "source"), train=part) for part in (True, False)]
    train, test = ((part.data, np.array(part.targets)) for part in parts)
    check(dataset, train, test, parts[0].classes, 3 if name == "cifar-10" else 2)


def test_cifar_100s_classes_are_those_of_the_few_shot_sets():
    with open(specs.get("cifar-fs").splits, newline="") as file:
        assert sorted(cifar_100.CLASSES) == sorted(row["class"] for row in csv.DictReader(file))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("data_batch_3", None, "is there without CIFAR-10's file 'data_batch_3': give cifar-10-python.tar.gz"),
        ("batches.meta", {"label_names": ["cat", "cat"]}, "label_names is no list of different names"),
        ("test_batch", {"labels": [10] * 20}, "labels must be numbers of the 10 classes that batches.meta names"),
        ("data_batch_1", {"labels": [0] * 14}, "images instead of 4: fetch it again"),
    ],
)
def test_a_damaged_cifar_10_is_named(file, change, message, tmp_path, capsys):
    path = cifar(tmp_path / "source", "cifar-10") / "cifar-10-batches-py" / file
    path.unlink()
    if change:
        fab.write(path, python2(cifar_batch(np.zeros(len([*change.values()][0]), int), "labels", 0) | change))
    assert call("cifar-10", tmp_path / "source") == USER_ERROR
    assert message in one_line_error(capsys)


# ---- MNIST


def test_mnist_is_what_torchvision_reads(tmp_path):
    """Digits have different numbers of images, and each gives the same number to validation."""
    folder = tmp_path / "source/MNIST/raw"
    counts = [4 + digit % 3 for digit in range(10)]
    for part, labels in (("train", random_labels(10, counts, 0)), ("t10k", random_labels(10, [3] * 10, 1))):
        images = random_pixels(len(labels), 28, 28)
        for name, array in (("labels-idx1", labels.astype(np.uint8)), ("images-idx3", images)):
            data = idx(array)
            fab.write(folder / f"{part}-{name}-ubyte", data)
            fab.write(folder / f"{part}-{name}-ubyte.gz", gzip.compress(data))
    dataset = prepared("mnist", tmp_path / "source")
    assert dataset["train"].counts == tuple(count - 2 for count in counts)
    parts = [theirs.MNIST(str(tmp_path / "source"), train=part) for part in (True, False)]
    train, test = ((part.data[..., None].expand(-1, -1, -1, 3).numpy(), part.targets.numpy()) for part in parts)
    check(dataset, train, test, "0123456789", 2)


# ---- SVHN


def svhn(folder: Path, compressed: bool = True, **changes) -> Path:
    """As published: label 10 for the digit 0. MATLAB writes both arrays compressed."""
    for part, counts in (("train", [5 + digit % 2 for digit in range(10)]), ("test", [3] * 10)):
        digits = random_labels(10, counts, 0)
        digits = np.where(digits == 0, 10, digits)[:, None]
        arrays = {"X": random_pixels(32, 32, 3, len(digits)), "y": digits.astype(np.uint8)} | changes
        file = io.BytesIO()
        arrays = {name: array for name, array in arrays.items() if array is not None}
        scipy.io.savemat(file, arrays, do_compression=compressed)
        fab.write(folder / f"{part}_32x32.mat", file.getvalue())
    fab.write(folder / "extra_32x32.mat", b"MATLAB 5.0 MAT-file, and what is not read")
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_is_what_torchvision_reads(compressed, tmp_path, monkeypatch):
    dataset = prepared("svhn", svhn(tmp_path / "source", compressed))
    monkeypatch.setattr(theirs.SVHN, "_check_integrity", lambda *_: True)  # of the true files
    parts = [theirs.SVHN(str(tmp_path / "source"), split=split) for split in ("train", "test")]
    train, test = ((part.data.transpose(0, 2, 3, 1), part.labels) for part in parts)
    check(dataset, train, test, "0123456789", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "is not SVHN's train_32x32.mat: it has no array X"),
        ({"X": np.zeros((32, 32, 3, 4))}, "X must be one uint8 array (32, 32, 3, N)"),
        ({"y": np.zeros((55, 1), np.uint8)}, "y must be 55 digits from 1 to 10"),
        ({"y": np.array([[{}]])}, "it has no array y"),
        ({"y": np.ones((55, 1)) + 1j}, "it has no array y"),
    ],
)
def test_a_wrong_svhn_is_named(changes, message, tmp_path, capsys):
    assert call("svhn", svhn(tmp_path / "source", **changes)) == USER_ERROR
    assert message in one_line_error(capsys)


def read(path: Path, data: bytes, limits: Limits) -> dict:
    path.write_bytes(data)
    (item,) = files_below(str(path), limits)
    return read_arrays(item, ("X", "y"))


def test_a_matlab_file_is_read_or_refused_whatever_was_damaged(tmp_path):
    """Many bytes of a small file are spoilt in turn, and it is cut at many places: the result is arrays or one line."""
    path, limits = tmp_path / "some.mat", Limits(unpacked=1 << 16, ratio=10)
    for compressed in (True, False):
        file = io.BytesIO()
        scipy.io.savemat(file, {"y": np.arange(1.0, 300.0), "X": random_pixels(2, 2, 3, 2)}, do_compression=compressed)
        good = file.getvalue()
        arrays = read(path, good, limits)
        assert arrays["y"].tolist() == [[*range(1, 300)]] and np.array_equal(arrays["X"], random_pixels(2, 2, 3, 2))
        places = [*range(124, 260), *range(260, len(good), 29)]  # all of the headers, and some of the values
        damaged = [good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :] for at in places]
        for data in damaged + [good[:at] for at in places]:
            try:
                assert read(path, data, limits).keys() <= {"X", "y"}
            except UserError as error:
                assert str(path) in str(error) and str(error).isprintable()


def test_a_matlab_file_may_not_unpack_to_whatever_it_likes(tmp_path):
    bomb = zlib.compress(bytes(1 << 22))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    with pytest.raises(UserError, match="unpacks to .* above the limit"):
        read(tmp_path / "some.mat", head + struct.pack("<II", 15, len(bomb)) + bomb, Limits(unpacked=1 << 16, ratio=10))


# ---- Tiny ImageNet


WNIDS = ("n01443537", "n02124075", "n12267677")


def tiny(folder: Path) -> Path:
    """Three classes: 5 training images of each, 2 of each in val, and one of an unknown class in test."""
    root, annotations = folder / "tiny-imagenet-200", []
    for row, cls in enumerate(reversed(WNIDS)):
        for image in range(5):
            number = image + 8  # so that 10 comes after 9, and not before it
            data = fab.image_file(100 * row + image, (64, 64), "JPEG")
            fab.write(root / "train" / cls / "images" / f"{cls}_{number}.JPEG", data)
        fab.write(root / "train" / cls / f"{cls}_boxes.txt", b"0\t0\t62\t62\n")
    for image, cls in enumerate((*WNIDS, *WNIDS)):
        fab.write(root / f"val/images/val_{image}.JPEG", fab.image_file(1000 + image, (64, 64), "JPEG"))
        annotations.append(f"val_{image}.JPEG\t{cls}\t0\t32\t44\t62\n")
    fab.write(root / "val/val_annotations.txt", "".join(annotations).encode())
    fab.write(root / "test/images/test_0.JPEG", fab.image_file(2000, (64, 64), "JPEG"))
    fab.write(root / "wnids.txt", "\n".join(reversed(WNIDS)).encode())
    fab.write(root / "words.txt", b"n00001740\tentity\n")
    return folder


def test_tiny_imagenets_images_lie_where_its_files_say(tmp_path, capsys):
    dataset = prepared("tiny-imagenet", tiny(tmp_path / "source"))
    assert "from Tiny ImageNet's folder" in capsys.readouterr().out
    root, names = tmp_path / "source/tiny-imagenet-200", sorted(WNIDS)

    def pixels(paths: list[Path]) -> np.ndarray:
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])

    train = pixels([root / f"train/{cls}/images/{cls}_{number}.JPEG" for cls in names for number in range(8, 13)])
    test = pixels([root / f"val/images/val_{image}.JPEG" for image in range(6)])
    check(dataset, (train, np.repeat(range(3), 5)), (test, np.tile(range(3), 2)), names, 2)


def test_a_part_of_tiny_imagenet_is_no_data_set(tmp_path, capsys):
    root = tiny(tmp_path / "source") / "tiny-imagenet-200"
    annotations = (root / "val/val_annotations.txt").read_bytes()
    for file, content, message in (
        ("val/val_annotations.txt", annotations + b"val_9.JPEG\tn01443537\t0\n", "line 7 names no image in val/images"),
        ("val/val_annotations.txt", None, "is there without val/val_annotations.txt"),
        ("wnids.txt", b"n01443537\nn02124075\nn00000000\n", "classes are missing: n00000000"),
        ("wnids.txt", None, "the list of its classes, wnids.txt, is not below --from"),
    ):
        before = (root / file).read_bytes()
        (root / file).unlink()
        if content is not None:
            (root / file).write_bytes(content)
        assert call("tiny-imagenet", tmp_path / "source") == USER_ERROR
        assert message in one_line_error(capsys)
        fab.write(root / file, before)
