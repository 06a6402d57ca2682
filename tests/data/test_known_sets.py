"""The data sets of the field: their published splits; small copies in their true formats, prepared and trained on."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
from commands import SMALL, one_line_error
from fabricate import idx, python2
from PIL import Image

from fewshot import describe, prepare, train
from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data import DatasetSpec, open_dataset, specs
from fewshot.data.importers import lists
from fewshot.data.importers.limits import Limits
from fewshot.data.members import without_images
from fewshot.data.specs.fashion_mnist import LABELS
from fewshot.episodes import frozen

PER_CLASS = 4

# The specifications unchanged, except for fewer images, and fewer classes where each is a folder.
SMALLER = """
import dataclasses
from fewshot.data.specs import cifar_fs, cub, fashion_mnist, fc100, omniglot, tiered_imagenet

def few(spec, splits):
    return dataclasses.replace(spec, splits=splits, images=None, images_per_class=4)

CIFAR_FS = dataclasses.replace(cifar_fs.SPEC, images_per_class=4)
FC100 = dataclasses.replace(fc100.SPEC, images_per_class=4)
FASHION_MNIST = dataclasses.replace(fashion_mnist.SPEC, images_per_class={"train": 5, "val": 3, "test": 3})
CUB = dataclasses.replace(few(cub.SPEC, {
    "train": ["001.Black_footed_Albatross", "003.Sooty_Albatross"],
    "val": ["002.Laysan_Albatross", "022.Chuck_will_Widow"],
    "test": ["004.Groove_billed_Ani", "200.Common_Yellowthroat"],
}), images=25)
TIERED = few(tiered_imagenet.SPEC, {
    "train": ["n01530575", "n01531178"], "val": ["n02708433", "n02749479"], "test": ["n01440764", "n01443537"],
})
OMNIGLOT = few(omniglot.SPEC, {
    "train": ["Greek/character01", "Angelic/character01"],
    "val": ["Greek/character02"],
    "test": ["Angelic/character02"],
})
"""

FORMATS: dict[str, tuple[str, str, Callable[[Path], object]]] = {}
"""Dotted name -> the data set's name, the line that names its source, and the function that writes a small copy."""


def copy_of(dotted: str, name: str, kind: str) -> Callable:
    def keep(write: Callable[[Path], object]) -> Callable[[Path], object]:
        FORMATS[f"smaller_sets.{dotted}"] = (name, kind, write)
        return write

    return keep


@pytest.fixture(autouse=True)
def smaller_sets(tmp_path, monkeypatch) -> Iterator[None]:
    (tmp_path / "smaller_sets.py").write_text(SMALLER)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("smaller_sets", None)


def call(*argv: str | Path) -> int:
    return run(prepare.main, [str(arg) for arg in argv])


# ---- what was published


@pytest.mark.parametrize(
    ("name", "classes", "images"),
    [
        ("cifar-fs", (64, 16, 20), (38_400, 9_600, 12_000)),
        ("fc100", (60, 20, 20), (36_000, 12_000, 12_000)),
        ("omniglot", (4 * 1028, 4 * 172, 4 * 423), (82_240, 13_760, 33_840)),
        ("mini-imagenet", (64, 16, 20), (38_400, 9_600, 12_000)),
        ("fashion-mnist", (10, 10, 10), (55_000, 5_000, 10_000)),
        ("tiered-imagenet", (351, 97, 160), None),
        ("cub", (100, 50, 50), None),
    ],
)
def test_splits_are_those_that_were_published(name, classes, images):
    spec = specs.get(name)
    wanted = lists.wanted(spec, None, (), Limits())
    if images is None:
        assert tuple(map(len, wanted.splits.values())) == classes
        with pytest.raises(UserError, match="known from its images only"):
            without_images(spec)
        return
    splits = without_images(spec).splits
    assert tuple(splits) == ("train", "val", "test")
    assert tuple(len(split.classes) for split in splits.values()) == classes
    assert tuple(sum(split.counts) for split in splits.values()) == images
    if not spec.shared_classes:
        assert len({cls for split in splits.values() for cls in split.classes}) == sum(classes)


def rows(name: str) -> list[dict[str, str]]:
    with open(specs.get(name).splits, newline="") as file:
        return list(csv.DictReader(file))


def test_fc100_splits_whole_superclasses():
    parents = defaultdict(list)
    for row in rows("fc100"):
        parents[row["superclass"], row["split"]].append(row["class"])
    assert Counter(split for _, split in parents) == {"train": 12, "val": 4, "test": 4}
    assert len({parent for parent, _ in parents}) == 20 and {len(own) for own in parents.values()} == {5}
    assert {row["class"] for row in rows("fc100")} == {row["class"] for row in rows("cifar-fs")}
    assert {parent for parent, split in parents if split == "test"} == {
        "aquatic_mammals", "insects", "medium_mammals", "people"
    }  # fmt: skip


def test_cub_is_split_as_chen_et_al_do():
    """Class number i, from 0: the even ones train, i mod 4 = 1 validates, 3 tests."""
    for row in rows("cub"):
        assert row["split"] == ("train", "val", "train", "test")[(int(row["class"][:3]) - 1) % 4]


def test_omniglots_alphabets_are_50_in_two_parts():
    """Vinyals et al. train on 36 alphabets, which take up the first part and some of the second."""
    assert len({row["class"].split("/")[0] for row in rows("omniglot")}) == 50
    parts = Counter((row["split"], row["part"]) for row in rows("omniglot"))
    assert parts["train", "background"] + parts["val", "background"] == 964 and parts["test", "evaluation"] == 423


def test_sums_that_were_published_are_told(tmp_path, capsys):
    spec = specs.get("tiered-imagenet")
    assert sum(spec.images.values()) == 779_165
    cub(tmp_path / "source")
    root = tmp_path / "root"
    assert call("smaller_sets.CUB", "--from", tmp_path / "source", "--data-root", root) == 0
    assert "note: There are 24 images, the published set 25: these are other tasks than everyone's" in (
        " ".join(capsys.readouterr().out.split())
    )


# ---- small copies in the true formats


CIFAR_CLASSES = sorted(row["class"] for row in rows("cifar-fs"))


def cifar_files() -> dict[str, dict]:
    """100 classes, 3 training images and 1 test image each, in a random order; names in the archive's manner."""
    random, files = np.random.default_rng(0), {}
    for part, each in (("train", 3), ("test", 1)):
        labels = random.permutation(np.repeat(np.arange(100), each))
        files[part] = {
            "filenames": [f"{CIFAR_CLASSES[label]}_s_{random.integers(10**6):06d}.png" for label in labels],
            "batch_label": f"{part}ing batch 1 of 1",
            "fine_labels": labels.tolist(),
            "coarse_labels": [0] * len(labels),
            "data": random.integers(0, 256, (len(labels), 3072), np.uint8),
        }
    files["meta"] = {"fine_label_names": CIFAR_CLASSES, "coarse_label_names": ["fish"]}
    return files


@copy_of("CIFAR_FS", "cifar-fs", "CIFAR-100's python archive, tar archives")
def cifar_archive(folder: Path) -> None:
    members = {f"cifar-100-python/{name}": python2(content) for name, content in cifar_files().items()}
    members["cifar-100-python/file.txt~"] = b""
    fab.write(folder / "cifar-100-python.tar.gz", fab.tar_of(members, "w:gz"))


@copy_of("FC100", "fc100", "CIFAR-100's python archive")
def cifar_folder(folder: Path) -> None:
    for name, content in cifar_files().items():
        fab.write(folder / "cifar-100-python" / name, python2(content))
    other = {"data": np.zeros((1, 3072), np.uint8), "labels": [0]}
    fab.write(folder / "cifar-10-batches-py/data_batch_1", python2(other))


def idx_files() -> dict[str, np.ndarray]:
    """10 classes, 8 training images and 3 test images each."""
    random, files = np.random.default_rng(1), {}
    for part, each in (("train", 8), ("t10k", 3)):
        files[f"{part}-labels-idx1-ubyte"] = random.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
        files[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (10 * each, 28, 28), np.uint8)
    return files


@copy_of("FASHION_MNIST", "fashion-mnist", "IDX files")
def fashion(folder: Path) -> None:
    """As torchvision leaves it: the files of the web page, and what they unpack to."""
    for name, array in idx_files().items():
        fab.write(folder / "FashionMNIST/raw" / name, idx(array))
        fab.write(folder / f"FashionMNIST/raw/{name}.gz", gzip.compress(idx(array)))


def folders(spec_classes: list[str], suffix: str, size: tuple[int, int]) -> fab.Files:
    return {
        cls: {f"{cls}_{image}{suffix}": fab.image_file(100 * row + image, size) for image in range(PER_CLASS)}
        for row, cls in enumerate(spec_classes)
    }


def small_classes(name: str) -> list[str]:
    space: dict = {}
    exec(SMALLER, space)
    return sorted(cls for classes in space[name].splits.values() for cls in classes)


@copy_of("CUB", "cub", "tar archives")
def cub(folder: Path) -> None:
    """CUB_200_2011.tgz: images and its other files, and a class that is in no split here."""
    files = folders([*small_classes("CUB"), "005.Crested_Auklet"], ".jpg", (50, 40))
    members = {f"CUB_200_2011/images/{cls}/{name}": data for cls, own in files.items() for name, data in own.items()}
    members |= {"CUB_200_2011/classes.txt": b"1 001.Black_footed_Albatross\n", "attributes.txt": b"1 has_bill\n"}
    members["CUB_200_2011/images/001.Black_footed_Albatross/._x.jpg"] = b"left by a Mac"
    fab.write(folder / "CUB_200_2011.tgz", fab.tar_of(members, "w:gz"))


@copy_of("TIERED", "tiered-imagenet", "image files")
def tiered(folder: Path) -> None:
    """ImageNet's training folders; another of its classes is there, too."""
    for cls, own in folders([*small_classes("TIERED"), "n09999999"], ".JPEG", (50, 40)).items():
        for name, data in own.items():
            fab.write(folder / "ILSVRC/train" / cls / name, data)


@copy_of("OMNIGLOT", "omniglot", "image files, zip archives")
def omniglot(folder: Path) -> None:
    """Greek in a folder, Angelic in an archive, as torchvision may leave them; black strokes on white, of 1 bit."""
    inner = {}
    for row, cls in enumerate(small_classes("OMNIGLOT")):
        for image in range(PER_CLASS):
            strokes = np.random.default_rng(10 * row + image).random((105, 105)) < 0.9
            file = io.BytesIO()
            Image.fromarray(strokes).save(file, "PNG")
            name = f"{row:04d}_{image + 1:02d}.png"
            if cls.startswith("Greek"):
                fab.write(folder / "omniglot-py/images_background" / cls / name, file.getvalue())
            else:
                inner[f"images_evaluation/{cls}/{name}"] = file.getvalue()
    fab.write(folder / "omniglot-py/images_evaluation.zip", fab.zip_of(inner))


@pytest.mark.parametrize("dotted", FORMATS)
def test_each_is_prepared_and_trained_on(dotted, tmp_path, capsys):
    name, kind, write = FORMATS[dotted]
    write(tmp_path / "source")
    flags = [dotted, "--from", tmp_path / "source", "--data-root", tmp_path / "root"]
    assert call(*flags) == 0
    out = capsys.readouterr().out
    assert f"from {kind}" in out and f"licence: {specs.get(name).licence[:20]}" in out
    assert call(*flags) == 0 and "already prepared" in capsys.readouterr().out
    dataset = open_dataset(name, tmp_path / "root")
    assert dataset.image_size == specs.get(name).image_size
    flags = ["--dataset", name, "--data-root", tmp_path / "root", "--ways", 2, "--queries", 1, "--test-ways", 2,
             "--test-shots", 1, "--test-queries", 1, "--epochs", 1, "--out", tmp_path / "run"]  # fmt: skip
    assert run(train.main, [str(flag) for flag in (*SMALL, *flags)]) == 0
    warned = "Warning: training sees 10 classes of the test split: these are no few-shot results." in (
        " ".join(capsys.readouterr().out.split())
    )
    assert warned == (name == "fashion-mnist")


def test_cifars_archive_folder_and_class_folders_are_one(tmp_path):
    cifar_archive(tmp_path / "archive")
    cifar_folder(tmp_path / "archive")  # torchvision leaves both
    cifar_folder(tmp_path / "folder")
    for content in cifar_files().values():
        for row, file in enumerate(content.get("filenames", ())):
            cls = CIFAR_CLASSES[content["fine_labels"][row]]
            pixels = content["data"][row].reshape(3, 32, 32).transpose(1, 2, 0)
            (tmp_path / "images" / cls).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "images" / cls / file)
    found = set()
    for source in ("archive", "folder", "images"):
        root = tmp_path / source / "root"
        assert call("smaller_sets.CIFAR_FS", "--from", tmp_path / source, "--data-root", root) == 0
        found.add(open_dataset("cifar-fs", root).fingerprint)
    assert len(found) == 1
    dataset = open_dataset("cifar-fs", tmp_path / "folder/root")
    assert dataset["test"].counts == (4,) * 20 and dataset["val"].classes == tuple(
        sorted(row["class"] for row in rows("cifar-fs") if row["split"] == "val")
    )


def test_fashion_mnists_images_lie_where_the_labels_say(tmp_path, capsys):
    fashion(tmp_path / "source")
    assert call("smaller_sets.FASHION_MNIST", "--from", tmp_path / "source", "--data-root", tmp_path / "root") == 0
    assert "what is tested was seen in training" in capsys.readouterr().out
    dataset, files = open_dataset("fashion-mnist", tmp_path / "root"), idx_files()
    assert dataset["train"].classes == tuple(sorted(LABELS))
    places = (("train", "train", slice(5)), ("val", "train", slice(5, None)), ("test", "t10k", slice(3)))
    for split, part, of_class in places:
        for place, cls in enumerate(dataset[split].classes):
            own = files[f"{part}-labels-idx1-ubyte"] == LABELS.index(cls)
            start, count = dataset[split].starts[place], dataset[split].counts[place]
            stored = dataset[split].images[start : start + count]
            assert stored.shape == (count, 28, 28, 3)
            assert (stored == files[f"{part}-images-idx3-ubyte"][own][of_class][..., None]).all()


def test_omniglots_rotations_are_classes(tmp_path, capsys):
    omniglot(tmp_path / "source")
    assert call("smaller_sets.OMNIGLOT", "--from", tmp_path / "source", "--data-root", tmp_path / "root") == 0
    assert "turned by 90, 180 or 270 degrees" in " ".join(capsys.readouterr().out.split())
    split = open_dataset("omniglot", tmp_path / "root")["val"]
    assert split.classes == tuple(f"Greek/character02/rot{degrees}" for degrees in ("000", "090", "180", "270"))
    upright, *turned = split.images.reshape(4, PER_CLASS, 28, 28, 3)
    for quarters, images in enumerate(turned, 1):
        assert (images == np.rot90(upright, quarters, axes=(1, 2))).all()
    raw = Image.open(next((tmp_path / "source/omniglot-py").glob("images_background/Greek/character02/*_01.png")))
    assert (upright[0] == np.asarray(raw.convert("RGB").resize((28, 28), Image.Resampling.LANCZOS))).all()


# ---- what is wrong with a copy


def spoilt_cifar(folder: Path, part: str, **values) -> None:
    cifar_folder(folder)
    content = cifar_files()[part] | values
    fab.write(folder / "cifar-100-python" / part, python2({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("meta", {"fine_label_names": None}, "meta is not CIFAR-100's meta: it has no fine_label_names"),
        ("meta", {"fine_label_names": ["apple", "apple"]}, "no list of different names"),
        ("test", {"fine_labels": [100] * 100}, "must be numbers of the 100 classes"),
        ("test", {"fine_labels": [1]}, "must be of one length"),
        ("train", {"data": np.zeros((300, 3071), np.uint8)}, "one uint8 array (N, 3072)"),
        ("train", {"fine_labels": [0] * 300}, "instead of 4: fetch it again"),
    ],
)
def test_a_damaged_cifar_is_named(part, values, message, tmp_path, capsys):
    spoilt_cifar(tmp_path / "source", part, **values)
    flags = ("--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call("smaller_sets.CIFAR_FS", *flags) == USER_ERROR
    assert message in one_line_error(capsys)


def test_a_part_of_cifar_is_no_data_set(tmp_path, capsys):
    cifar_folder(tmp_path / "source")
    flags = ("--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call("cifar-fs", *flags) == USER_ERROR
    assert "has 4 images instead of 600: fetch it again" in one_line_error(capsys)
    (tmp_path / "source/cifar-100-python/test").unlink()
    assert call("smaller_sets.CIFAR_FS", *flags) == USER_ERROR
    assert "is there without CIFAR-100's file 'test'" in one_line_error(capsys)
    spoilt_cifar(tmp_path / "other", "train", batch_label="another")
    cifar_archive(tmp_path / "other")
    assert call("smaller_sets.CIFAR_FS", "--from", tmp_path / "other", "--data-root", tmp_path / "root") == USER_ERROR
    assert "differ: give one of them" in one_line_error(capsys)
    assert call("cifar-fs", "--from", tmp_path / "smaller_sets.py", "--data-root", tmp_path / "root") == USER_ERROR
    assert "100 of 100 classes are missing" in one_line_error(capsys)


def test_no_row_can_name_an_image_of_cifars_archive(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_rows.py").write_text(
        "from fewshot.data import DatasetSpec\nSPEC = DatasetSpec('mine', importers=('cifar',), image_size=32)\n"
    )
    cifar_folder(tmp_path / "source")
    rows = [("nowhere/8.png", "dolphin", "train"), ("nowhere/9.png", "seal", "test")]
    listed = fab.write_csv(tmp_path / "splits.csv", ("filename", "label", "split"), rows)
    flags = ("my_rows.SPEC", "--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call(*flags, "--splits", listed) == USER_ERROR
    assert "give columns split,class" in one_line_error(capsys)
    fab.write_csv(listed, ("split", "class"), [("train", "dolphin"), ("test", "seal")])
    assert call(*flags, "--splits", listed) == 0
    assert call(*flags) == USER_ERROR
    assert "say it with `splits` in its specification" in capsys.readouterr().err
    sys.modules.pop("my_rows")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", None, "is there without train-images"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(29, np.uint8)), "30 images, "),
        ("t10k-labels-idx1-ubyte", idx(np.full(30, 10, np.uint8)), "has the label 10; there are 10 classes"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((30, 1, 1), np.uint8)), "is no IDX file of bytes in 1 dimensions"),
        ("train-images-idx3-ubyte", idx(np.zeros((80, 28, 28), np.uint8))[:-1], "62,719 bytes instead of 62,720"),
        ("train-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\xff" * 12, "truncated or corrupt"),
    ],
)
def test_a_damaged_idx_file_is_named(name, data, message, tmp_path, capsys):
    for own, array in idx_files().items():
        if own != name or data:
            fab.write(tmp_path / "source" / own, data if own == name else idx(array))
    flags = ("--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call("smaller_sets.FASHION_MNIST", *flags) == USER_ERROR
    assert message in one_line_error(capsys)


def test_specifications_that_cannot_be():
    for values in ({"rotations": (45,)}, {"rotations": (0, 90)}):
        with pytest.raises(UserError, match="rota"):
            DatasetSpec("mine", **values)


def test_describe_says_how_many_images(capsys):
    for name, said in (("fashion-mnist", "5,500 train, 500 val, 1,000 test"), ("cub", "11,788"), ("fc100", "600")):
        assert run(describe.main, [name]) == 0
        assert said in capsys.readouterr().out


FASHION = Path(os.environ.get("FEWSHOT_TEST_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(tmp_path):
    assert call("fashion-mnist", "--from", FASHION, "--data-root", tmp_path) == 0
    dataset = open_dataset("fashion-mnist", tmp_path)
    tasks = frozen.read("fashion-mnist-test-5w5s15q").tasks(dataset)
    assert frozen.pixel_warning(dataset, [tasks]) is None


IMAGENETS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFARS = (tuple(v / 255 for v in (129.377, 124.106, 112.478)), tuple(v / 255 for v in (68.209, 65.431, 70.459)))


@pytest.mark.parametrize(
    ("name", "side", "per_class", "images", "normalisation"),
    [
        ("cifar-fs", 32, 600, None, CIFARS), ("fc100", 32, 600, None, CIFARS),
        ("cub", 84, None, 11_788, IMAGENETS),
        ("imagenet", 224, {"val": 50, "test": 50}, {"train": 1_231_167, "val": 50_000, "test": 50_000}, IMAGENETS),
        ("cifar-10", 32, {"train": 4500, "val": 500, "test": 1000}, None, None),
        ("cifar-100", 32, {"train": 450, "val": 50, "test": 100}, None, None),
        ("tiny-imagenet", 64, {"train": 450, "val": 50, "test": 50}, None, None),
        ("mnist", 28, {"val": 500}, {"train": 55_000, "val": 5_000, "test": 10_000}, None),
        ("svhn", 32, {"val": 500}, {"train": 68_257, "val": 5_000, "test": 26_032}, None),
    ],
)  # fmt: skip
def test_what_a_specification_fixes_is_what_was_published(name, side, per_class, images, normalisation):
    spec = specs.get(name)
    assert (spec.image_size, spec.images_per_class, spec.images) == (side, per_class, images)
    assert spec.normalisation == normalisation


def test_tiereds_sums_are_those_of_its_splits():
    spec = specs.get("tiered-imagenet")
    assert spec.image_size == 84 and spec.images == {"train": 448_695, "val": 124_261, "test": 206_209}
