"""ImageNet, decoded on the fly: its lists, views as torchvision makes them, batches that a resume repeats."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
import torch
from commands import ROOT, one_line_error
from PIL import ExifTags, Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as theirs

from fewshot import experiment, prepare, train
from fewshot.core import files
from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data import DatasetSpec, dataset_json, open_dataset
from fewshot.data.image_files import ImageFiles, random_box
from fewshot.data.importers.images import picture
from fewshot.data.specs import imagenet
from fewshot.defaults import configure
from fewshot.runs import Run

SMALLER = """
import dataclasses
from fewshot.data.specs import imagenet
SPEC = dataclasses.replace(imagenet.SPEC, images_per_class={"val": 2, "test": 3}, images=None, image_size=32)
"""
WNIDS = ("n01440764", "n02129165", "n07747607")
FLAGS = ["--dataset", "imagenet", "--regime", "supervised:batch=4", "--backbone", "resnet8", "--crop-padding", "0",
         "--epochs", "2", "--threads", "1", "--device", "cpu", "--precision", "fp32"]  # fmt: skip


@pytest.fixture(autouse=True)
def smaller_sets(tmp_path, monkeypatch) -> Iterator[None]:
    (tmp_path / "smaller_imagenet.py").write_text(SMALLER)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("smaller_imagenet", None)


def ilsvrc(folder: Path, kaggle: bool = False) -> Path:
    """Six training and three test images a class, of several shapes; one is gray, as some of ImageNet's are."""
    lines = ["ImageId,PredictionString"]
    base = folder / "ILSVRC/Data/CLS-LOC" if kaggle else folder
    for row, cls in enumerate(WNIDS):
        for image in range(6):
            size = ((50, 40), (40, 61), (48, 48))[image % 3]
            fab.write(base / "train" / cls / f"{cls}_{image}.JPEG", fab.image_file(10 * row + image, size, "JPEG"))
        for image in range(3):
            name, data = f"ILSVRC2012_val_0000{image}{row}", fab.image_file(100 + 10 * row + image, (45, 40), "JPEG")
            fab.write(base / "val" / ("" if kaggle else cls) / f"{name}.JPEG", data)
            lines.append(f"{name},{cls} 1 2 30 40 {cls} 5 5 9 9")
    Image.new("L", (37, 44), 90).save(base / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG")
    if kaggle:
        fab.write(folder / "LOC_val_solution.csv", "\n".join(lines).encode())
    return folder


def call(source: Path, *flags: str) -> int:
    argv = ["smaller_imagenet.SPEC", "--from", str(source), "--data-root", str(source.parent / "root"), *flags]
    return run(prepare.main, argv)


@pytest.fixture
def source(tmp_path, capsys) -> Path:
    folder = ilsvrc(tmp_path / "source")
    assert call(folder) == 0
    capsys.readouterr()
    return folder


def opened(source: Path):
    return open_dataset("imagenet", source.parent / "root")


def test_both_layouts_are_listed_and_nothing_is_copied(source, tmp_path, capsys):
    dataset = opened(source)
    assert {name: split.counts for name, split in dataset.splits.items()} == {
        "train": (4,) * 3, "val": (2,) * 3, "test": (3,) * 3
    }  # fmt: skip
    assert dataset["train"].images.names[:2] == [f"train/{WNIDS[0]}/{WNIDS[0]}_{image}.JPEG" for image in range(2)]
    assert dataset["val"].images.names[-1] == f"train/{WNIDS[2]}/{WNIDS[2]}_5.JPEG"
    written = {path.name for path in (tmp_path / "root/imagenet").iterdir()}
    assert written == {"dataset.json", "train.txt", "val.txt", "test.txt"}
    assert call(source) == 0 and "already prepared" in capsys.readouterr().out
    kaggle = ilsvrc(tmp_path / "other/source", kaggle=True)
    assert call(kaggle) == 0
    for split in ("train", "val"):
        ours, others = opened(source)[split], opened(kaggle)[split]
        assert ours.images.names == others.images.names and ours.membership == others.membership
    tested = opened(kaggle)["test"].images
    assert [tested[row].tobytes() for row in range(9)] == [image.tobytes() for image in dataset["test"].images[:]]


def test_the_evaluation_view_is_torchvisions(source):
    files = opened(source)["train"].images
    views = files[:]
    assert views.shape == files.shape == (12, 32, 32, 3) and len(files) == 12
    for row, name in enumerate(files.names):
        image = Image.open(source / name).convert("RGB")
        expected = np.asarray(theirs.center_crop(theirs.resize(image, round(32 * 256 / 224)), 32))
        assert np.array_equal(views[row], expected), name
    assert np.array_equal(files[np.array([7, 2])], views[[7, 2]]) and np.array_equal(files[3], views[3])


def test_random_crops_are_torchvisions_at_boxes_drawn_as_it_draws_them(source):
    files, index = opened(source)["train"].images, np.array([0, 5, 5, 1])
    crops = files.crops(index, np.random.default_rng(3), mirror=True)()
    again = np.random.default_rng(3)
    numbers, flips = again.random((4, 10, 4)), again.random(4) < 0.5
    assert 0 < flips.sum() < 4
    part = files.crops(index, np.random.default_rng(3), mirror=True, some=slice(1, 3))()
    assert np.array_equal(part, crops[1:3]), "a process that needs a part of a batch sees the same"
    for crop, row, tries, flip in zip(crops, index, numbers, flips, strict=True):
        image = Image.open(source / files.names[row]).convert("RGB")
        left, top, right, bottom = random_box(*image.size, tries)
        expected = np.asarray(theirs.resized_crop(image, top, left, bottom - top, right - left, [32, 32]))
        assert np.array_equal(crop, expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize("size", [(500, 375), (300, 40)])
def test_boxes_are_distributed_as_torchvisions(size):
    """Means of width, height, left and top, over 2,000 draws each: within 4 standard errors of their difference."""
    torch.manual_seed(0)
    image, draw = torch.empty(3, size[1], size[0]), np.random.default_rng(0)
    other = np.array([RandomResizedCrop.get_params(image, [0.08, 1], [3 / 4, 4 / 3]) for _ in range(2000)])
    boxes = np.array([random_box(*size, draw.random((10, 4))) for _ in range(2000)])
    ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    assert (boxes >= 0).all() and (boxes[:, 2:] <= size).all() and (ours[:, 2:] > 0).all()
    error = ((ours.var(0) + other.var(0)) / 2000) ** 0.5
    assert (abs(ours.mean(0) - other.mean(0)) <= 4 * error + 1e-9).all()


def test_a_batch_is_the_same_ahead_and_after_a_resume(source):
    def regime(text: str = "supervised:batch=5"):
        values = {
            "dataset": "imagenet", "data_root": str(source.parent / "root"), "regime": text, "val_every": 2,
            "backbone": "resnet8", "crop_padding": 0, "epochs": 2, "device": "cpu", "precision": "fp32",
        }  # fmt: skip
        return experiment.prepare(configure(**values)).regime

    first, fresh = regime(), regime()
    batches = [first.batch(step) for step in range(4)]
    assert torch.equal(fresh.batch(3).images, batches[3].images), "as after a resume: nothing was decoded ahead"
    assert torch.equal(fresh.batch(1).images, batches[1].images) and batches[3].images.shape == (5, 3, 32, 32)
    assert not torch.equal(batches[0].images, batches[1].images)
    for batch, index in zip(batches, map(first._index, range(4)), strict=True):
        assert batch.labels.tolist() == (index // 4).tolist()
    every = regime("supervised:batch=18,train=all")
    assert sorted(every.source.files.names) == sorted(path.relative_to(source).as_posix()
                                                      for path in source.glob("train/*/*"))  # fmt: skip
    assert [name.split("/")[1] for name in every.source.files.names] == [cls for cls in WNIDS for _ in range(6)]


def test_a_run_is_trained_and_tested_on_files(source, tmp_path):
    out = tmp_path / "run"
    assert run(train.main, [*FLAGS, "--data-root", str(source.parent / "root"), "--out", str(out)]) == 0
    (row,) = Run.open(out).classification
    assert row["images"] == 9 and row["dataset"] == "imagenet" and "images" not in row.get("seen_in_training", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "n01440764_0.JPEG cannot be read (No such file or directory)"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has changed since it was prepared"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is unreadable (no image)"),
    ],
)
def test_a_file_that_is_not_what_it_was_is_named(source, change, message, tmp_path, capsys):
    change(source / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG")
    assert run(train.main, [*FLAGS, "--data-root", str(source.parent / "root"), "--out", str(tmp_path / "run")]) == 2
    assert message in one_line_error(capsys)


def test_mistakes_are_one_line(source, tmp_path, capsys):
    flags = [*FLAGS, "--crop-padding", "4", "--data-root", str(source.parent / "root"), "--out", str(tmp_path / "run")]
    assert run(train.main, flags) == USER_ERROR
    assert "give --crop-padding 0" in one_line_error(capsys)
    assert call(source, "--size", "64") == USER_ERROR
    assert "is there at 32 px; you asked for 64" in one_line_error(capsys)
    path = tmp_path / "root/imagenet/train.txt"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"_0.JPEG", b"_9.JPEG"))
    assert call(source) == USER_ERROR and "train.txt was changed since it was prepared" in one_line_error(capsys)
    path.write_bytes(before)
    for break_it, message in (
        (lambda: (source / "val" / WNIDS[0]).rename(source / "val/n00000000"), "train and val have other classes"),
        (lambda: (source / "val").rename(source / "away"), "it has no folders train and val"),
    ):
        break_it()
        assert call(source) == USER_ERROR and message in one_line_error(capsys)


def test_a_store_finds_its_files_where_they_are_now(source, tmp_path, capsys):
    before = opened(source)
    moved = source.rename(tmp_path / "elsewhere")
    assert call(moved) == 0 and "only its images' folder changed" in capsys.readouterr().out
    after = opened(source)
    assert after.fingerprint == before.fingerprint and after["train"].images.folder == moved
    assert after["test"].images[0].shape == (32, 32, 3)
    assert call(moved) == 0 and "nothing changed" in capsys.readouterr().out
    (moved / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").write_bytes(b"other")
    assert call(moved) == USER_ERROR and "was prepared from other files" in one_line_error(capsys)


def test_again_without_a_size_takes_that_of_the_store(tmp_path, capsys):
    source = ilsvrc(tmp_path / "source")
    assert call(source, "--size", "64") == 0
    capsys.readouterr()
    assert call(source) == 0
    assert "is there at 64 px, and stays so; the specification says 32" in capsys.readouterr().out
    assert opened(source).image_size == 64


@pytest.mark.parametrize("locks", [True, False])
def test_two_at_once(locks, tmp_path, capsys, monkeypatch):
    """While one writes its lists, another data set is prepared, which leaves them alone; or the same one, faster."""
    source, write = ilsvrc(tmp_path / "source"), dataset_json.write
    for number in range(2):
        fab.write(tmp_path / f"other/train/cat/{number}.png", fab.image_file(number, (16, 16)))

    def slow(*args):
        monkeypatch.setattr(dataset_json, "write", write)
        if locks:
            argv = ["other", "--from", str(tmp_path / "other"), "--data-root", str(tmp_path / "root")]
            assert run(prepare.main, argv) == 0
        else:
            assert call(source) == 0
        return write(*args)

    monkeypatch.setattr(dataset_json, "write", slow)
    if not locks:
        monkeypatch.setattr(files, "fcntl", None)
    assert call(source) == (0 if locks else USER_ERROR)
    if not locks:
        assert "another process made" in one_line_error(capsys)
    assert call(source) == 0 and opened(source)["val"].counts == (2,) * 3


@pytest.mark.parametrize("name", [b"caf\xe9.JPEG", b"two\nlines.JPEG"])
def test_a_name_that_no_list_can_hold(name, tmp_path, capsys):
    folder = ilsvrc(tmp_path / "source") / "train" / WNIDS[1]
    (folder / os.fsdecode(name)).write_bytes(b"x")
    assert call(tmp_path / "source") == USER_ERROR
    assert "has a name that no list can hold" in one_line_error(capsys)


def test_splits_of_ones_own_are_refused(tmp_path, capsys):
    """The folders give the splits, and each split has all classes."""
    assert call(ilsvrc(tmp_path / "source"), "--splits", "nofile.csv") == USER_ERROR
    assert "imagenet has its own splits: leave --splits out" in one_line_error(capsys)
    for values in ({"splits": {"train": ["a"]}}, {"shared_classes": False}, {"importers": ("images",)}):
        with pytest.raises(UserError, match="ImageNet's layout only"):
            dataclasses.replace(imagenet.SPEC, **values)
    with pytest.raises(UserError, match="ImageNet's layout only"):
        DatasetSpec("mine", importers=("imagenet",))


def test_the_files_have_an_arrays_form(tmp_path):
    files = ImageFiles(tmp_path, [], [], 32)
    assert files[:].shape == (0, 32, 32, 3)


def test_crops_are_not_mirrored_where_nobody_asks_for_it(source):
    """Otherwise, the crops are the same."""
    files, index = opened(source)["train"].images, np.arange(12)
    mirrored, plain = (files.crops(index, np.random.default_rng(3), mirror=each)() for each in (True, False))
    again = np.random.default_rng(3)
    again.random((12, 10, 4))
    flips = again.random(12) < 0.5
    assert 0 < flips.sum() < 12
    for one, other, flip in zip(mirrored, plain, flips, strict=True):
        assert np.array_equal(other, one[:, ::-1] if flip else one)


def test_what_a_mac_leaves_beside_images_is_none(tmp_path):
    source = ilsvrc(tmp_path / "source")
    (folder,) = source.rglob(f"train/{WNIDS[0]}")
    fab.write(folder / f"._{WNIDS[0]}_0.JPEG", b"notes about a file")
    assert call(source) == 0
    names = list(opened(source)["train"].images.names)
    assert names and not any("._" in name for name in names)


@pytest.mark.parametrize("name", ["train", f"val/{WNIDS[1]}"])
def test_a_folder_that_may_not_be_read_is_named(name, tmp_path, capsys, monkeypatch):
    folder = ilsvrc(tmp_path / "source") / name
    fab.closed(folder, monkeypatch)
    assert call(tmp_path / "source") == USER_ERROR
    assert f"{folder} cannot be read (Permission denied)" in one_line_error(capsys)


def test_a_broken_link_is_named(tmp_path, capsys):
    path = ilsvrc(tmp_path / "source") / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert call(tmp_path / "source") == USER_ERROR
    assert f"{path} is a broken link: repair it or remove it" in one_line_error(capsys)


def test_damaged_exif_data_are_nothing_to_warn_of(tmp_path):
    """In a process of its own, with Python's own filters: a progress bar would be torn apart."""
    image, path = Image.new("RGB", (40, 50)), tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    whole = exif.tobytes()
    image.save(path, exif=whole[:-4])
    code = (
        "import sys; from pathlib import Path; from fewshot.data.image_files import ImageFiles\n"
        "path = Path(sys.argv[1]); print(ImageFiles(path.parent, [path.name], [path.stat().st_size], 32)[[0]].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("(1, 32, 32, 3)\n", "")
    with pytest.warns(UserWarning, match="EXIF"):
        picture(path.read_bytes())


def test_kaggles_list_may_lie_anywhere(tmp_path, capsys):
    source = ilsvrc(tmp_path / "source", kaggle=True)
    listed = (source / "LOC_val_solution.csv").rename(tmp_path / "LOC_val_solution.csv")
    assert call(source) == USER_ERROR
    assert "give LOC_val_solution.csv, too, by --from" in one_line_error(capsys)
    assert call(source, "--from", str(listed)) == 0


def test_the_order_of_kaggles_list_decides_nothing(tmp_path):
    source = ilsvrc(tmp_path / "source", kaggle=True)
    path = source / "LOC_val_solution.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(lines)]))
    assert call(source) == 0
    names = list(opened(source)["test"].images.names)
    assert len(names) == 9 and all(names[at : at + 3] == sorted(names[at : at + 3]) for at in (0, 3, 6))
