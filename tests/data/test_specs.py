"""A data set is a specification: one file, ours or a user's, is all that prepare, train and the rest need."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
from commands import ROOT, SMALL, one_line_error

from fewshot import prepare, train
from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data import Dataset, DatasetSpec, Split, dataset_json, default_dataset, open_dataset, specs, store
from fewshot.data.channels import Channels
from fewshot.data.names import SPLITS
from fewshot.runs import Run

CLASSES = ("circle", "cross", "ring", "square")

SHAPES = """
from fewshot.data import DatasetSpec

SHAPES = DatasetSpec("shapes", image_size=16, shared_classes=True, licence="the public domain")
FEW = DatasetSpec(
    "few", splits={"train": ["square", "circle"], "test": ["ring"]}, image_size=24, importers=["images"],
    images_per_class=8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6),
)
NUMBER = 7
GLYPHS = DatasetSpec("glyphs")
MINIIMAGENET = DatasetSpec("MiniImageNet")
"""


@pytest.fixture
def my_sets(tmp_path, monkeypatch) -> Iterator[None]:
    """A user's own file, somewhere on the path."""
    (tmp_path / "my_sets.py").write_text(SHAPES)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_sets", None)


def in_splits(folder: Path, counts: dict[str, int], classes: tuple[str, ...] = CLASSES) -> Path:
    """FOLDER/train/circle/0.png, ...: images of other pixels under the same names in each split."""
    for split, count in counts.items():
        for row, cls in enumerate(classes):
            for number in range(count):
                data = fab.image_file(10_000 * SPLITS.index(split) + 100 * row + number, (20, 16))
                fab.write(folder / split / cls / f"{number}.png", data)
    return folder


def call(*argv: str | Path) -> int:
    return run(prepare.main, [str(arg) for arg in argv])


@pytest.mark.parametrize("name", specs.names())
def test_each_of_ours_is_one_file_that_says_its_name(name):
    spec = specs.get(name)
    assert isinstance(spec, DatasetSpec) and spec.name == name and spec.licence


def test_a_classification_data_set_is_one_file_of_the_users(tmp_path, my_sets, capsys):
    """Every class in every split, separated by folders: prepared, opened, trained on, scored."""
    source = in_splits(tmp_path / "source", {"train": 6, "val": 4, "test": 5})
    root = tmp_path / "root"
    assert call("my_sets.SHAPES", "--from", source, "--data-root", root) == 0
    out = capsys.readouterr().out
    assert "licence: the public domain" in out and "in several splits: what is tested was seen in training" in out
    dataset = open_dataset("shapes", root)
    assert dataset.image_size == 16 and open_dataset("my_sets.SHAPES", root).fingerprint == dataset.fingerprint
    for split, count in (("train", 6), ("val", 4), ("test", 5)):
        assert dataset[split].classes == CLASSES and dataset[split].counts == (count,) * 4
    assert not np.array_equal(dataset["train"].images[0], dataset["test"].images[0])
    flags = ["--dataset", "my_sets.SHAPES", "--data-root", root, "--ways", 4, "--queries", 2, "--test-ways", 4,
             "--test-shots", 1, "--test-queries", 3, "--out", tmp_path / "run"]  # fmt: skip
    assert run(train.main, [str(flag) for flag in (*SMALL, *flags)]) == 0
    assert "No recipe is named shapes: the defaults and your flags make 2 epochs" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "run/result.json").read_text())["results"]
    assert row["dataset"] == "shapes" and row["ways"] == 4 and row["fingerprint"] == dataset.fingerprint
    assert Run.open(tmp_path / "run").config.dataset == "shapes", "the same experiment, whichever name was written"


def test_file_names_tell_a_shared_classs_images_apart(tmp_path, my_sets, capsys, monkeypatch):
    for cls in CLASSES[:2]:
        for number in range(6):
            fab.write(tmp_path / "source" / cls / f"{number}.png", fab.image_file(100 * len(cls) + number, (16, 16)))
    listed = tmp_path / "splits.csv"
    rows = [(f"{n}.png", cls, "train" if n < 4 else "test") for cls in CLASSES[:2] for n in range(6)]
    fab.write_csv(listed, ("filename", "label", "split"), rows)
    flags = ("--from", tmp_path / "source", "--data-root", tmp_path / "root", "--splits", listed)
    assert call("my_sets.SHAPES", *flags) == 0
    dataset = open_dataset("shapes", tmp_path / "root")
    assert (dataset["train"].counts, dataset["test"].counts) == ((4, 4), (2, 2))
    assert np.array_equal(dataset["test"].images[1], fab.pixels((tmp_path / "source/circle/5.png").read_bytes()))
    capsys.readouterr()
    assert call("mine", *flags) == USER_ERROR
    assert "class 'circle' is in two splits, train and test" in one_line_error(capsys)
    fab.write_csv(listed, ("split", "class"), [("train", "circle"), ("test", "circle")])
    assert call("my_sets.SHAPES", *flags[:-2], "--splits", listed, "--data-root", tmp_path / "b") == USER_ERROR
    assert "by a CSV file with columns filename,label,split or by folders" in one_line_error(capsys)
    mapping = dataclasses.replace(specs.get("my_sets.SHAPES"), splits=dict.fromkeys(("train", "test"), CLASSES))
    monkeypatch.setattr(sys.modules["my_sets"], "SHAPES", mapping)
    assert call("my_sets.SHAPES", *flags[:2], "--data-root", tmp_path / "c") == USER_ERROR
    assert "by splits=Path(CSV), with columns filename,label,split, or without `splits`" in one_line_error(capsys)


def test_what_a_specification_fixes_holds(tmp_path, my_sets, capsys):
    """Splits, size, normalisation and counts; pickles that it does not read are left alone."""
    for row, cls in enumerate(CLASSES):
        for number in range(8):
            fab.write(tmp_path / "source" / cls / f"{number}.png", fab.image_file(100 * row + number))
    fab.write(tmp_path / "source/cache.pkl", b"\x80\x04 no pickle of images")
    flags = ("my_sets.FEW", "--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call(*flags) == 0
    dataset = open_dataset("few", tmp_path / "root")
    assert {name: split.classes for name, split in dataset.splits.items()} == {
        "train": ("circle", "square"), "test": ("ring",)
    }  # fmt: skip
    assert dataset.image_size == 24 and dataset.mean == (0.1, 0.2, 0.3) and dataset.std == (0.4, 0.5, 0.6)
    (tmp_path / "source/ring/7.png").unlink()
    capsys.readouterr()
    assert call(*flags[:-1], tmp_path / "other") == USER_ERROR
    assert "class ring has 7 images instead of 8" in one_line_error(capsys)


def test_a_specification_that_was_edited_since_is_noticed(tmp_path, my_sets, capsys):
    for row, cls in enumerate(CLASSES):
        for number in range(8):
            fab.write(tmp_path / "source" / cls / f"{number}.png", fab.image_file(100 * row + number))
    flags = ("--from", tmp_path / "source", "--data-root", tmp_path / "root")
    assert call("my_sets.FEW", *flags) == 0
    for name, old, new, status, words in (
        ("edited_mean", "(0.1, 0.2, 0.3)", "(0.1, 0.2, 0.4)", USER_ERROR, "with other mean and std than few's spec"),
        ("edited_size", "image_size=24", "image_size=32", 0, "at 24 px, and stays so; the specification says 32"),
    ):
        (tmp_path / f"{name}.py").write_text(SHAPES.replace(old, new))
        capsys.readouterr()
        assert call(f"{name}.FEW", *flags) == status
        assert words in (one_line_error(capsys) if status else capsys.readouterr().out)
        sys.modules.pop(name)
    assert call("my_sets.FEW", *flags) == 0 and "stays so" not in capsys.readouterr().out


def test_classes_are_found_however_their_accents_are_written(tmp_path, monkeypatch):
    (tmp_path / "accents.py").write_text(SHAPES.replace('"ring"', '"re\u0301glisse"'))
    monkeypatch.syspath_prepend(tmp_path)
    for row, cls in enumerate(("circle", "square", "r\u00e9glisse")):
        for number in range(8):
            fab.write(tmp_path / "source" / cls / f"{number}.png", fab.image_file(100 * row + number))
    assert call("accents.FEW", "--from", tmp_path / "source", "--data-root", tmp_path / "root") == 0
    assert open_dataset("few", tmp_path / "root")["test"].classes == ("r\u00e9glisse",)
    sys.modules.pop("accents")


def test_the_specification_that_the_readme_shows(tmp_path, monkeypatch):
    text = (ROOT / "data/README.md").read_text()
    (tmp_path / "my_flowers.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    for row, cls in enumerate(("daisy", "iris", "poppy", "rose", "tulip", "violet")):
        for number in range(3):
            fab.write(tmp_path / "source" / cls / f"{number}.png", fab.image_file(10 * row + number))
    assert call("my_flowers.FLOWERS", "--from", tmp_path / "source", "--data-root", tmp_path) == 0
    assert open_dataset("flowers", tmp_path)["val"].images.shape == (6, 64, 64, 3)


# ---- normalisation


def test_prepare_stores_the_training_splits_mean_and_standard_deviation(tmp_path):
    in_splits(tmp_path / "source", {"train": 5}, ("a", "b"))
    in_splits(tmp_path / "source", {"val": 3}, ("c", "d"))
    assert call("mine", "--from", tmp_path / "source", "--data-root", tmp_path / "root", "--size", 16) == 0
    dataset = open_dataset("mine", tmp_path / "root")
    pixels = np.array(dataset["train"].images, np.float64).reshape(-1, 3) / 255
    assert dataset.mean == tuple(pixels.mean(0).round(6)) and dataset.std == tuple(pixels.std(0).round(6))
    index = tmp_path / "root/mine/dataset.json"
    record = json.loads(index.read_text())
    stored = record.pop("normalisation")
    index.write_text(json.dumps(record))  # as written before normalisation was stored
    old = open_dataset("mine", tmp_path / "root")
    assert (list(old.mean), list(old.std)) == (stored["mean"], stored["std"]) and old.fingerprint == dataset.fingerprint
    for spoiled in ({"mean": [1, 2], "std": [1, 1]}, {"mean": [0, 0, 0], "std": [0, 1, 1]}, {"mean": [0, 0, 0]}, 3):
        index.write_text(json.dumps(record | {"normalisation": spoiled}))
        with pytest.raises(UserError, match="is damaged"):
            open_dataset("mine", tmp_path / "root")


def test_a_channel_that_never_changes_does_not_divide_by_zero(tmp_path):
    blank = np.full((600, 8, 8, 3), (0, 7, 255), np.uint8)
    dataset = Dataset("blank", {"train": Split("train", blank, ("a",), (600,))}, "none", "none")
    assert dataset.mean == (0.0, round(7 / 255, 6), 1.0) and dataset.std == (round(1 / 255, 6),) * 3


def test_an_old_store_of_mini_imagenet_has_the_fields_normalisation(tmp_path):
    folder = tmp_path / "mini-imagenet"
    folder.mkdir()
    images = np.zeros((2, 84, 84, 3), np.uint8)
    entry = {"classes": ["a"], "counts": [2], "shape": list(images.shape)}
    entry["sha256"] = store.write_array(folder / "train.npy", images.shape, [images])
    dataset_json.write(folder, "mini-imagenet", {"train": entry}, "noise", [], {})
    dataset = open_dataset("mini-imagenet", tmp_path)
    assert dataset.mean == (120.396 / 255, 115.594 / 255, 104.540 / 255)
    assert dataset.std == (70.682 / 255, 68.276 / 255, 72.545 / 255)
    assert default_dataset(tmp_path) == ("mini-imagenet", f"prepared under {tmp_path}")
    name, why = default_dataset(tmp_path / "empty")
    assert name == "glyphs" and why == f"embedded; mini-imagenet is not prepared under {tmp_path / 'empty'}"


# ---- names


def test_an_embedded_data_set_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "letters.py").write_text(
        "from fewshot.data import DatasetSpec, specs\n"
        "LETTERS = DatasetSpec('letters', load=lambda: specs.get('glyphs').load())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_dataset("letters.LETTERS") is open_dataset("glyphs")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_sets.NUMBER", "my_sets has no fewshot.data.DatasetSpec named 'NUMBER'"),
        ("my_sets.NONE", "my_sets has no fewshot.data.DatasetSpec named 'NONE'"),
        ("no_such_sets.SHAPES", "'no_such_sets.SHAPES' is not prepared under"),
        ("my_sets.SHAPES", "'shapes' is not prepared under .* fewshot.prepare my_sets.SHAPES --from"),
        ("mini-imagnet", "did you mean 'mini-imagenet'"),
        ("glyph", "did you mean 'glyphs'"),
    ],
)
def test_names_that_are_no_data_set(name, message, tmp_path, my_sets):
    with pytest.raises(UserError, match=message):
        open_dataset(name, tmp_path / "root")


def test_what_a_users_file_itself_lacks_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_sets.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        specs.find("broken_sets.SHAPES")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["my_sets.GLYPHS"], "glyphs is built in"),
        (["Glyphs"], "Glyphs is easily taken for glyphs"),
        (["mini_imagenet"], "mini_imagenet is easily taken for mini-imagenet: write that"),
        (["my_sets.MINIIMAGENET"], "MiniImageNet is easily taken for mini-imagenet"),
        (["no_such_sets.SHAPES"], "cannot import no_such_sets, in which no_such_sets.SHAPES would be: is its"),
        (["tiny-imagenet", "--splits", "nofile.csv"], "tiny-imagenet has its own splits"),
    ],
)
def test_names_that_nothing_is_prepared_under(argv, message, tmp_path, my_sets, capsys):
    source = in_splits(tmp_path / "source", {"train": 3})
    assert call(*argv, "--from", source, "--data-root", tmp_path / "root") == USER_ERROR
    assert message in one_line_error(capsys) and not (tmp_path / "root").exists()


def test_a_store_under_such_a_name_is_still_verified(tmp_path):
    source = in_splits(tmp_path / "source", {"train": 3})
    assert call("mine", "--from", source, "--data-root", tmp_path / "root") == 0
    for name in ("mini_imagenet", "my.flowers"):
        folder = (tmp_path / "root/mine").rename(tmp_path / "root" / name)
        record = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(record | {"name": name}))
        assert call(name, "--from", source, "--data-root", tmp_path / "root") == 0
        folder.rename(tmp_path / "root/mine")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../up"}, "a data set's name is"),
        ({"image_size": 0}, "image_size=0: give an integer from 16 to 1,024"),
        ({"image_size": 16.0}, "image_size=16.0: give an integer"),
        ({"mean": (0.5, 0.5, 0.5)}, "give both mean and std"),
        ({"mean": (120, 115, 104), "std": (0.2, 0.2, 0.2)}, "mean=.* are divided by 255"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0, 0, 0)}, "std=.* has a zero"),
        ({"mean": (0.5, 0.5), "std": (0.2, 0.2, 0.2)}, "mean=.* give three numbers"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, float("nan"))}, "std=.* give numbers in"),
        ({"importers": ["tapes"]}, "unknown importers"),
        ({"importers": ["tiny-imagenet"]}, "give shared_classes=True"),
        ({"splits": "splits.csv"}, "splits='splits.csv': give a Path"),
        ({"splits": {"dev": ["a"]}}, "unknown splits dev"),
        ({"splits": {"train": "cat"}}, "the classes of train are 'cat': give a list"),
        ({"splits": {"train": [1, 2]}}, "the classes of train are"),
        ({"splits": {"train": []}}, "the classes of train are"),
        ({"splits": {"train": ["a", "b", "a"]}}, "class 'a' is in train twice"),
        ({"images_per_class": "20"}, "images_per_class='20': give an integer"),
        ({"images_per_class": {"training": 20}}, "images_per_class of 'training', which is no split"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        DatasetSpec(**{"name": "mine"} | values)


def test_numpys_numbers_are_numbers(tmp_path):
    grey = np.float32(0.5)
    spec = DatasetSpec("mine", image_size=np.int64(32), mean=np.full(3, grey), std=(grey,) * 3)
    assert json.dumps([spec.image_size, *spec.normalisation]) == "[32, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]"


def test_sums_over_many_white_images_do_not_overflow():
    channels = Channels()
    channels.add(np.full((70_000, 1, 1, 3), 255, np.uint8))
    assert channels.statistics() == ((1.0,) * 3, (round(1 / 255, 6),) * 3)
