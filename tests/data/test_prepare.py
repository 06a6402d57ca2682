"""python -m fewshot.prepare, through its command line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
from commands import measured
from foreign import tar_of, zip_of
from PIL import Image

from fewshot import prepare
from fewshot.core import files
from fewshot.core.console import run
from fewshot.core.files import locked
from fewshot.data import dataset_json, open_dataset
from fewshot.data.importers import ilsvrc

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    return fab.split_csv(tmp_path / "splits.csv")


@pytest.fixture
def call(tmp_path: Path, splits: Path, capsys):
    """call(source...) prepares `tiny` under tmp_path/root; returns exit status, stdout, stderr."""

    def call(*sources: Path, name: str = "tiny", root: Path | None = None, more: tuple[str, ...] = ()):
        argv = [name, *(f"--from={source}" for source in sources), f"--data-root={root or tmp_path / 'root'}", *more]
        status = run(prepare.main, argv if name == "mini-imagenet" else [*argv, f"--splits={splits}"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def refused(result: tuple[int, str, str], *words: str, root: Path | None = None) -> None:
    """Exit status 2, one line on stderr with these words in it, and nothing left under `root`."""
    status, out, err = result
    assert status == 2, (out, err)
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert not out
    for word in words:
        assert word in err, err
    if root is not None:
        assert not root.exists() or not list(root.iterdir())


def made(folder: Path, layout: str, files: fab.Files | None = None) -> Path:
    fab.LAYOUTS[layout](folder, files or fab.dataset())
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """The arrays that every layout must give: classes by name, images by name."""
    files = fab.dataset()
    return {
        split: np.stack([fab.pixels(data) for cls in sorted(classes) for _, data in sorted(files[cls].items())])
        for split, classes in fab.SPLITS.items()
    }


@pytest.mark.parametrize("layout", fab.LAYOUTS)
def test_every_layout_gives_the_same_store(layout, tmp_path, call, expected):
    name = "fabricate.TINY" if layout == "raw_ilsvrc" else "tiny"  # for which lists choose the images
    status, out, err = call(made(tmp_path / "source", layout), name=name)
    assert (status, err) == (0, ""), err
    data = open_dataset("tiny", tmp_path / "root")
    for split, images in expected.items():
        assert np.array_equal(data[split].images, images), split
        assert data[split].classes == fab.SPLITS[split]
        assert data[split].counts == (fab.PER_CLASS,) * len(fab.SPLITS[split])
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["tiny"]
    other = made(tmp_path / "other", "class_folders")
    call(other, root=tmp_path / "again")
    assert data.fingerprint == open_dataset("tiny", tmp_path / "again").fingerprint
    assert any("order" in note for note in data.notes) == layout.startswith(("ren", "metaoptnet", "raw"))


def test_parts_in_several_folders_may_overlap(tmp_path, call, expected):
    files = fab.dataset()
    classes = list(files)
    made(tmp_path / "a", "class_zips", {cls: files[cls] for cls in classes[:4]})
    made(tmp_path / "b", "class_folders", {cls: files[cls] for cls in classes[3:]})
    assert call(tmp_path / "a", tmp_path / "b")[0] == 0
    assert np.array_equal(open_dataset("tiny", tmp_path / "root")["val"].images, expected["val"])


def test_single_files_are_sources_too(tmp_path, call, expected):
    source = made(tmp_path / "source", "class_tar_gz")
    assert call(*source.iterdir())[0] == 0
    assert np.array_equal(open_dataset("tiny", tmp_path / "root")["test"].images, expected["test"])


def test_copies_under_one_name_that_differ_are_refused(tmp_path, call):
    files = fab.dataset()
    made(tmp_path / "a", "class_zips", files)
    fab.write(tmp_path / "b/n01000001/n0100000100000005.jpg", fab.image_file(77))
    refused(call(tmp_path / "a", tmp_path / "b"), "n0100000100000005.jpg", "differ", root=tmp_path / "root")


def test_same_pixels_in_another_file_are_a_copy(tmp_path, call):
    made(tmp_path / "a", "class_zips")
    name = "n0100000100000005.jpg"
    data = fab.dataset()["n01000001"][name]
    fab.write(tmp_path / "b/n01000001" / name, data + b"trailing")
    assert call(tmp_path / "a", tmp_path / "b")[0] == 0


def test_again_verifies_and_changes_nothing(tmp_path, call):
    source = made(tmp_path / "source", "class_zips")
    call(source)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*")}
    for again in (source, made(tmp_path / "pickles", "ren_pickles")):  # the same files; the same pixels
        status, out, _ = call(again)
        assert status == 0 and "already prepared" in out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*")}


def test_store_of_other_images_is_left_alone(tmp_path, call):
    call(made(tmp_path / "source", "class_zips"))
    files = fab.dataset()
    files["n02000001"]["n0200000100000003.jpg"] = fab.image_file(4242)
    fingerprint = open_dataset("tiny", tmp_path / "root").fingerprint
    refused(call(made(tmp_path / "other", "class_zips", files)), "other images", "delete", "--data-root")
    assert open_dataset("tiny", tmp_path / "root").fingerprint == fingerprint


def test_folders_say_the_splits(tmp_path, expected, capsys):
    """SOURCE/train/CLASS/..., without --splits; a class in two splits is refused."""
    source = made(tmp_path / "source", "split_folders")
    argv = ["tiny", f"--from={source}", f"--data-root={tmp_path / 'root'}"]
    assert run(prepare.main, argv) == 0
    data = open_dataset("tiny", tmp_path / "root")
    assert all(np.array_equal(data[split].images, images) for split, images in expected.items())
    assert all(data[split].classes == classes for split, classes in fab.SPLITS.items())
    assert run(prepare.main, argv) == 0 and "already prepared" in capsys.readouterr().out
    shutil.copytree(source / "train/n01000001", source / "test/n01000001")
    status = run(prepare.main, [*argv[:2], f"--data-root={tmp_path / 'other'}"])
    refused((status, *capsys.readouterr()), "'n01000001' is in two splits, train and test", root=tmp_path / "other")


def test_what_no_split_has_is_named(tmp_path, capsys):
    """An archive in train/ is a class, as a folder is; loose images and other folders are left out, and named."""
    source, argv = tmp_path / "source", ["tiny", f"--from={tmp_path / 'source'}", f"--data-root={tmp_path / 'root'}"]
    made(source, "split_folders")
    files = {f"{number}.png": fab.image_file(500 + number) for number in range(3)}
    fab.write(source / "train/zebra.zip", zip_of(files))
    fab.write(source / "train/yak.tar.gz", tar_of({f"yak/{name}": data for name, data in files.items()}, "w:gz"))
    fab.write(source / "train/loose.png", fab.image_file(600))
    fab.write(source / "dev/cat/1.png", fab.image_file(601))
    status, (_, err) = run(prepare.main, argv), capsys.readouterr()
    assert status == 2 and "are copies of other images" in err, err
    (source / "train/yak.tar.gz").unlink()
    assert run(prepare.main, argv) == 0
    left = f"left out: {source}/dev/cat/1.png, {source}/train/loose.png"
    assert left in capsys.readouterr().out
    assert open_dataset("tiny", tmp_path / "root")["train"].classes == (*fab.SPLITS["train"], "zebra")
    shutil.rmtree(tmp_path / "root")
    for name in ("valid", "Validation"):
        folder = (source / "val").rename(source / name)
        refused((run(prepare.main, argv), *capsys.readouterr()), f"{folder} is no split", "call this folder val")
        folder.rename(source / "val")


def test_another_size_or_other_splits_are_refused_before_an_image_is_read(tmp_path, call, splits):
    """What the folder then holds cannot be decoded: reading it would give another complaint."""
    call(made(tmp_path / "source", "class_zips"), more=("--size", "32"))
    for path in (tmp_path / "source").rglob("*.zip"):
        path.write_bytes(b"PK\x03\x04 no archive")
    refused(call(tmp_path / "source", more=("--size", "42")), "is there at 32 px; you asked for 42", "--data-root")
    rows = [(split, cls) for split, classes in fab.SPLITS.items() for cls in classes[:2]]
    fab.write_csv(splits, ("split", "class"), rows)
    refused(
        call(tmp_path / "source"), "is there with other splits: 3 classes in train (18 images)",
        "you asked for 2 classes in train (12 images)", "another name",
    )  # fmt: skip
    rows = [(n, c, s) for s, classes in fab.SPLITS.items() for c in classes for n in sorted(fab.dataset()[c])[:4]]
    fab.write_csv(splits, ("filename", "label", "split"), rows)
    refused(call(tmp_path / "source"), "3 classes in train (18 images); you asked for 3 classes in train (12 images)")


def test_again_without_a_size_takes_that_of_the_store(tmp_path, call):
    source = made(tmp_path / "source", "class_zips")
    call(source, more=("--size", "32"))
    status, out, _ = call(source)
    assert status == 0 and "already prepared" in out


def test_changed_store_is_named(tmp_path, call):
    source = made(tmp_path / "source", "class_zips")
    call(source)
    path = tmp_path / "root/tiny/val.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(call(source), "val.npy", "changed")


def test_other_sizes_are_resized_and_recorded(tmp_path, call):
    source = made(tmp_path / "source", "class_zips", fab.dataset(size=(120, 97)))
    assert call(source, more=("--size", "32"))[0] == 0
    data = open_dataset("tiny", tmp_path / "root")
    assert data["train"].images.shape == (18, 32, 32, 3)
    assert "36 images were resized" in data.notes[0] and "Lanczos" in data.notes[0]


def test_grey_and_palette_images_become_rgb(tmp_path, call):
    files = fab.dataset()
    for name, mode in zip(sorted(files["n03000001"]), ("L", "P", "CMYK", "RGBA"), strict=False):
        picture = Image.fromarray(fab.pixels(files["n03000001"][name])).convert(mode)
        picture.save(tmp_path / "picture", "TIFF" if mode == "CMYK" else "PNG")
        files["n03000001"][name] = (tmp_path / "picture").read_bytes()
    assert call(made(tmp_path / "source", "class_folders", files))[0] == 0
    grey = open_dataset("tiny", tmp_path / "root")["test"].images[0]
    assert (grey == grey[..., :1]).all() and grey.std() > 10


def test_lists_choose_the_images(tmp_path, call, splits):
    """--splits with columns filename,label,split: of each class only the images named."""
    files = fab.dataset()
    rows = [(n, cls, split) for split, classes in fab.SPLITS.items() for cls in classes for n in sorted(files[cls])[:4]]
    fab.write_csv(splits, ("filename", "label", "split"), rows)
    assert call(made(tmp_path / "source", "class_tars", files))[0] == 0
    first = open_dataset("tiny", tmp_path / "root")["train"]
    assert first.counts == (4, 4, 4)
    assert np.array_equal(first.images[3], fab.pixels(files["n01000001"]["n0100000100000009.jpg"]))


def test_metaoptnet_without_names_takes_the_order_of_names(tmp_path, call, expected):
    made(tmp_path / "source", "metaoptnet_pickles")
    for path in (tmp_path / "source").iterdir():
        content = pickle.loads(path.read_bytes())
        del content["catname2label"]
        path.write_bytes(pickle.dumps(content))
    assert call(tmp_path / "source")[0] == 0
    data = open_dataset("tiny", tmp_path / "root")
    assert np.array_equal(data["train"].images, expected["train"])
    assert any("classes came as numbers" in note for note in data.notes)


def test_metaoptnet_other_phases_are_left_aside(tmp_path, call, expected):
    """train_phase_val holds other and fewer images of the train classes."""
    made(tmp_path / "source", "metaoptnet_pickles")
    fewer = {cls: {str(n): fab.image_file(5000 + n) for n in range(4)} for cls in fab.SPLITS["train"]}
    phase = fab.metaoptnet(fewer, fab.SPLITS["train"], 0)
    fab.write(tmp_path / "source/miniImageNet_category_split_a_phase.pickle", pickle.dumps(phase))
    assert call(tmp_path / "source")[0] == 0
    assert np.array_equal(open_dataset("tiny", tmp_path / "root")["train"].images, expected["train"])


# ---- bad input: exit status 2, one line, nothing written


def test_missing_and_empty_sources(tmp_path, call):
    root = tmp_path / "root"
    refused(call(tmp_path / "nowhere"), "nowhere", "no such", root=root)
    (tmp_path / "void").mkdir()
    refused(call(tmp_path / "void"), "void", "empty", root=root)
    fab.write(tmp_path / "text/README.md", b"hello")
    refused(call(tmp_path / "text"), "6 of 6 classes are missing", root=root)


def test_missing_classes_are_named(tmp_path, call):
    files = fab.dataset()
    del files["n01000002"], files["n02000001"]
    result = call(made(tmp_path / "source", "class_zips", files))
    refused(result, "2 of 6", "n01000002, n02000001", root=tmp_path / "root")


def test_listed_images_that_are_missing_are_named(tmp_path, call):
    made(tmp_path / "source", "flat_with_lists")
    for number in (3, 5, 9, 12):
        (tmp_path / f"source/images/n01000001{number:08d}.jpg").unlink()
    result = call(tmp_path / "source", name="fabricate.TINY")
    refused(result, "n01000001 lacks 4 of the 6", "n0100000100000003.jpg", "and 1 more", root=tmp_path / "root")


def test_raw_class_that_is_not_whole(tmp_path, call):
    made(tmp_path / "source", "raw_ilsvrc")
    for number in (77, 84, 91, 98):
        (tmp_path / f"source/train/n01000001/n01000001_{number}.JPEG").unlink()
    result = call(tmp_path / "source", name="fabricate.TINY")
    refused(result, "n01000001 lacks 1 of the 6", "n0100000100000012.jpg", root=tmp_path / "root")


def test_raw_class_whose_first_file_is_absent_is_named(tmp_path, call):
    """What is then in the store cannot be told from what should be there, except that the class has fewer files."""
    made(tmp_path / "source", "raw_ilsvrc")
    (tmp_path / "source/train/n01000001/n01000001_7.JPEG").unlink()
    status, out, _ = call(tmp_path / "source", name="fabricate.TINY")
    assert status == 0 and "6 of these classes have fewer than 1,300 files: n01000001 (13), n01000002 (14)" in out
    record = json.loads((tmp_path / "root/tiny/dataset.json").read_text())
    assert record["details"]["raw_files"] == {cls: 13 + (cls != "n01000001") for cls in fab.dataset()}


def test_raw_class_that_holds_more_than_imagenet(tmp_path, call):
    made(tmp_path / "source", "raw_ilsvrc")
    for number in range(1000, 2287):
        (tmp_path / f"source/train/n01000001/n01000001_{number}.JPEG").touch()
    result = call(tmp_path / "source", name="fabricate.TINY")
    refused(result, "n01000001 has 1,301 files", "no class of ImageNet has more than 1,300", root=tmp_path / "root")


def test_too_few_images(tmp_path, call):
    files = fab.dataset()
    files["n03000001"] = dict([files["n03000001"].popitem()])
    refused(call(made(tmp_path / "source", "class_zips", files)), "n03000001 has 1 images", root=tmp_path / "root")


def test_unreadable_images_are_named_and_counted(tmp_path, call):
    source = made(tmp_path / "source", "class_folders")
    (source / "n01000001/n0100000100000003.jpg").write_bytes(b"")
    (source / "n01000001/n0100000100000005.jpg").write_bytes(b"<html>not found</html>")
    cut = source / "n03000001/n0300000100000009.jpg"
    cut.write_bytes(cut.read_bytes()[:-500])
    refused(
        call(source), "3 unreadable images", "n0100000100000003.jpg", "n0100000100000005.jpg", "n0300000100000009.jpg",
        root=tmp_path / "root",
    )  # fmt: skip


PACKED = ("class_zips", "class_tars", "class_tar_gz", "one_zip", "tar_of_tars", "ren_pickles", "metaoptnet_pickles")


@pytest.mark.parametrize("layout", PACKED)
def test_truncated_files(layout, tmp_path, call):
    source = made(tmp_path / "source", layout)
    path = sorted(path for path in source.rglob("*") if path.is_file())[0]
    data = path.read_bytes()
    for kept in (len(data) // 2, len(data) * 9 // 10, 600):
        path.write_bytes(data[:kept])
        refused(call(source), path.name, "truncated or corrupt", root=tmp_path / "root")
    path.write_bytes(b"")
    refused(call(source), path.name, "empty", root=tmp_path / "root")


@pytest.mark.parametrize("layout", [*PACKED, "flat_with_lists"])
def test_flipped_bytes_never_give_a_traceback(layout, tmp_path, call):
    """Either the damage is noticed, in one line, or it only changed pixels that carry no check sum."""
    source = made(tmp_path / "source", layout)
    path = sorted(path for path in source.rglob("*") if path.is_file())[0]
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    noticed = 0
    for trial in range(25):
        damaged = bytearray(data)
        ends = np.concatenate([np.arange(min(300, len(data))), np.arange(max(0, len(data) - 300), len(data))])
        for place in generator.choice(ends, 4):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        result = call(source, root=tmp_path / f"root{trial}")
        if result[0]:
            refused(result, root=tmp_path / f"root{trial}")
            noticed += 1
    assert noticed > 5


def test_copied_images_are_recorded_and_many_are_refused(tmp_path, call):
    files = fab.dataset()
    for row, (cls, images) in enumerate(files.items()):  # to 30 each
        images |= {f"{cls}{n:08d}.jpg": fab.image_file(10_000 + 100 * row + n) for n in range(50, 74)}
    names = sorted(files["n02000001"])
    files["n02000001"][names[7]] = files["n01000001"]["n0100000100000001.jpg"]
    assert call(made(tmp_path / "one", "class_zips", files))[0] == 0
    data = open_dataset("tiny", tmp_path / "root")
    first = "train/n01000001/n0100000100000001.jpg"
    assert data.notes == (
        "Images equal to another one, pixel by pixel: 1, across splits 1.",
        f"Leak between splits: val/n02000001/{names[7]} = {first}.",
    )
    record = json.loads((tmp_path / "root/tiny/dataset.json").read_text())
    assert record["details"]["copies"] == [[f"val/n02000001/{names[7]}", first]]
    for name in names[10:12]:
        files["n02000001"][name] = files["n02000001"][names[0]]
    root = tmp_path / "second"
    refused(call(made(tmp_path / "many", "class_zips", files), root=root), "n02000001", "3 of its 30", root=root)


def test_class_twice_as_images_and_pickle(tmp_path, call):
    made(tmp_path / "a", "class_zips")
    made(tmp_path / "b", "ren_pickles")
    refused(call(tmp_path / "a", tmp_path / "b"), "n01000001", "give one of them", root=tmp_path / "root")


def test_place_that_cannot_be_written(tmp_path, call):
    source = made(tmp_path / "source", "class_zips")
    (tmp_path / "file").write_text("in the way")
    refused(call(source, root=tmp_path / "file/root"), "file", "not a folder")
    fab.write(tmp_path / "root/tiny/my notes.txt", b"keep")
    refused(call(source), "no prepared data set")
    assert (tmp_path / "root/tiny/my notes.txt").read_bytes() == b"keep"


def test_full_disk_leaves_nothing(tmp_path, call):
    source = made(tmp_path / "source", "class_zips")
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root; the failing write below covers the rest")
    try:
        refused(call(source, root=small / "root"), "disk is full", root=small / "root")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_store_is_on_the_disk_before_it_has_its_name(tmp_path, call, monkeypatch):
    flushed, flush, replace = set(), os.fsync, os.replace

    def before(source: Path, target: Path) -> None:
        written = {path.stat().st_ino for path in Path(source).iterdir()}
        assert len(written) == 4 and written <= flushed
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda handle: flushed.add(os.fstat(handle).st_ino) or flush(handle))
    monkeypatch.setattr(os, "replace", before)
    assert call(made(tmp_path / "source", "class_zips"))[0] == 0


def test_failing_write_leaves_nothing(tmp_path, call, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(dataset_json, "write", full)  # after the arrays
    refused(call(made(tmp_path / "source", "class_zips")), "disk is full", root=tmp_path / "root")


def test_two_at_once(tmp_path, call, monkeypatch):
    """Where the system has no locks, whoever is second finds a store in the way, and leaves it."""
    source = made(tmp_path / "source", "class_zips")
    write = dataset_json.write

    def slow(*args):
        monkeypatch.setattr(dataset_json, "write", write)
        assert call(source)[0] == 0  # the other, quicker one
        return write(*args)

    monkeypatch.setattr(dataset_json, "write", slow)
    monkeypatch.setattr(files, "fcntl", None)
    refused(call(source), "another process")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["tiny"]
    assert "already prepared" in call(source)[1]


def test_interruption_leaves_nothing(tmp_path, call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_json, "write", interrupted)
    assert call(made(tmp_path / "source", "class_zips"))[0] == 130
    assert not list((tmp_path / "root").iterdir())


KILLED = """
import os, sys
from fewshot import prepare
from fewshot.core.console import run
from fewshot.data import dataset_json

number = int(sys.argv.pop(1))
dataset_json.write = lambda *_: os.kill(os.getpid(), number)
sys.exit(run(prepare.main))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_what_a_killed_prepare_leaves_is_cleared_by_the_next(number, tmp_path, call, splits, hears_hangup):
    """But not the folder of a process that is still at work."""
    source, root = made(tmp_path / "source", "class_zips"), tmp_path / "root"
    argv = ["tiny", f"--from={source}", f"--splits={splits}", f"--data-root={root}"]
    program = [sys.executable, "-c", KILLED, str(int(number))]
    killed = subprocess.run([*program, *argv], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == (-number if number == signal.SIGKILL else 130), killed.stderr
    assert len(list(root.iterdir())) == (2 if number == signal.SIGKILL else 0)  # the folder and the lock
    for name in ("live", "dead"):
        (root / f".preparing-{name}-a1b2c3d4").mkdir()
    with locked(root / ".preparing-live.lock"):
        assert call(source)[0] == 0
        assert {path.name for path in root.iterdir()} == {
            "tiny", ".preparing-live-a1b2c3d4", ".preparing-live.lock"
        }  # fmt: skip
    assert [path.name for path in (root / "tiny").iterdir() if path.name.startswith(".")] == []


def test_the_second_of_two_waits_and_verifies_what_the_first_made(tmp_path, call, splits):
    source, root = made(tmp_path / "source", "class_zips"), tmp_path / "root"
    assert call(source)[0] == 0
    (root / "tiny").rename(tmp_path / "tiny")
    argv = ["tiny", f"--from={source}", f"--splits={splits}", f"--data-root={root}"]
    with locked(root / ".preparing-tiny.lock"):
        second = subprocess.Popen(
            [sys.executable, "-m", "fewshot.prepare", *argv], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert second.stdout.readline() == f"another process is preparing {root / 'tiny'}: waiting for it\n"
        (tmp_path / "tiny").rename(root / "tiny")  # the first is done
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and out.startswith("already prepared, verified, nothing changed")
    assert [path.name for path in root.iterdir()] == ["tiny"]


LIMITED = """
import resource, sys
from fewshot import prepare
from fewshot.core.console import run

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
sys.exit(run(prepare.main))
"""


@pytest.mark.parametrize("most", [100, 200_000])
def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing(most, tmp_path, splits):
    """Like a full disk, which is the same error with another number: in an array's header, and in its images."""
    source, root = made(tmp_path / "source", "class_zips"), tmp_path / "root"
    argv = ["tiny", f"--from={source}", f"--splits={splits}", f"--data-root={root}"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(most), *argv], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "larger than this process may write" in done.stderr
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["mini-imagenet"], "--from"),
        (["mini-imagnet", "--from", "."], "Did you mean 'mini-imagenet'"),
        (["tiny", "--from", ".", "--splits", "nowhere.csv"], "nowhere.csv"),
        (["mini-imagenet", "--from", ".", "--splits", "x.csv"], "leave --splits out"),
        (["glyphs", "--from", "."], "built in"),
        (["../up", "--from", "."], "name"),
        (["tiny", "--from", ".", "--splits", "x.csv", "--size", "0"], "--size 0"),
        (["tiny", "--from", ".", "--size", "big"], "--size"),
        (["tiny", "--from", ".", "--splits", "x.csv", "--size", "15"], "--size 15: from 16"),  # no backbone takes it
    ],
)
def test_wrong_arguments(argv, word, capsys):
    status = run(prepare.main, argv)
    refused((status, *capsys.readouterr()), word)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "split,class"),
        ("a,b\n1,2\n", "split,class"),
        ("split,class\ntrain,x\nval,x\n", "two splits"),
        ("split,class\ndev,x\n", "'dev'"),
        ("split,class\ntrain\n", "line 2"),
        ("split,class\n", "rows"),
    ],
)
def test_wrong_splits(text, word, splits, tmp_path, call):
    splits.write_text(text)
    (tmp_path / "source").mkdir()
    refused(call(tmp_path / "source"), word, root=tmp_path / "root")


# ---- as a process, and mini-ImageNet itself


def command(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fewshot.prepare", *map(str, argv)],
        capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | environment,
    )  # fmt: skip


def test_help_imports_no_torch():
    result = command("--help")
    assert result.returncode == 0 and "--from PATH" in result.stdout
    imported = command("--help", PYTHONPROFILEIMPORTTIME="1").stderr
    assert "fewshot.core.console" in imported and "torch" not in imported


def test_the_environment_gives_the_data_root(tmp_path, splits):
    source = made(tmp_path / "source", "class_zips")
    result = command("tiny", "--from", source, "--splits", splits, FEWSHOT_DATA=str(tmp_path / "from-env"))
    assert (result.returncode, result.stderr) == (0, ""), result.stderr  # no progress bar where nobody watches
    assert (tmp_path / "from-env/tiny/dataset.json").exists()


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> Path:
    """mini-ImageNet's 100 classes of 600 names, without a picture in them."""
    folder = tmp_path_factory.mktemp("counted")
    for row in (REPOSITORY / "data/splits/mini-imagenet.csv").read_text().split()[1:]:
        fab.write(folder / f"{row.split(',')[1]}.zip", fab.zip_of({f"{n}.jpg": b"" for n in range(600)}))
    return folder


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n01532829": 599}, ("n01532829 has 599 images instead of 600",)),
        ({"n01532829": 601, "n03544143": 599}, ("n01532829 has 601", "train.csv", "1 more")),
    ],
)
def test_mini_imagenet_is_counted(changed, words, counted, tmp_path, call):
    for path in counted.iterdir():
        fab.write(tmp_path / "source" / path.name, path.read_bytes())
    for cls, count in changed.items():
        fab.write(tmp_path / "source" / f"{cls}.zip", fab.zip_of({f"{n}.jpg": b"" for n in range(count)}))
    refused(call(tmp_path / "source", name="mini-imagenet"), *words, root=tmp_path / "root")


def test_mini_imagenet_itself(mini_imagenet, mini_imagenet_source, tmp_path):
    """Within 60 s of processor time and 1 GB; then the same from parts in two folders, some of them in both."""
    root, first = mini_imagenet
    parts = [tmp_path / "part-0", tmp_path / "part-1"]
    for number, archive in enumerate(sorted(mini_imagenet_source.glob("images/*"))):
        for part in parts if number < 3 else parts[number % 2 :][:1]:
            part.mkdir(exist_ok=True)
            (part / archive.name).symlink_to(archive)
    second = measured("prepare", "mini-imagenet", *(f"--from={part}" for part in parts), "--data-root", root)
    assert f"prepared {root}" in first.out and "already prepared" in second.out
    for command in (first, second):
        assert command.seconds < 60 and command.kilobytes < 1e6
    data = open_dataset("mini-imagenet", root)
    assert {name: len(split.classes) for name, split in data.splits.items()} == {"train": 64, "val": 16, "test": 20}
    assert all(set(split.counts) == {600} for split in data.splits.values())
    with zipfile.ZipFile(mini_imagenet_source / "images/n01532829.zip") as archive:
        name = sorted(archive.namelist())[1]
        assert np.array_equal(data["train"].images[1], fab.pixels(archive.read(name)))


def test_a_raw_class_of_1300_files_is_whole():
    names = [f"n01532829_{number}.JPEG" for number in range(1300, 0, -1)]
    assert ilsvrc.in_order("n01532829", names)[::1299] == ["n01532829_1.JPEG", "n01532829_1300.JPEG"]
    assert [len(ilsvrc.remarks({"n01532829": count})) for count in (1300, 1299)] == [1, 2]
