"""What `--splits` says is what is taken: rows name files exactly, and what contradicts them is named."""

from __future__ import annotations

import io
import json
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
from commands import one_line_error
from PIL import Image

from fewshot import prepare
from fewshot.core.console import USER_ERROR, run
from fewshot.data import open_dataset

PIXELS = {name: fab.image_file(number, (16, 16)) for number, name in enumerate("abcdefghijklmnop")}


def tree(folder: Path, *paths: str) -> Path:
    """Image files, each with its own pixels: the first path has PIXELS["a"], and so on."""
    for path, data in zip(paths, PIXELS.values(), strict=False):
        fab.write(folder / path, data)
    return folder


@pytest.fixture
def call(tmp_path, capsys):
    """call(csv, *more) -> the data set made of tmp_path/source by that CSV file, or the one-line complaint."""

    def call(csv: str | bytes, *more: str, name: str = "mine"):
        path = tmp_path / "splits.csv"
        path.write_bytes(csv if isinstance(csv, bytes) else csv.encode())
        argv = [name, f"--from={tmp_path / 'source'}", f"--data-root={tmp_path / 'root'}", "--size=16", *more]
        status = run(prepare.main, [*argv, f"--splits={path}"] if csv else argv)
        if status:
            assert status == USER_ERROR and not any((tmp_path / "root").glob("*"))
            return one_line_error(capsys)
        capsys.readouterr()
        return open_dataset(name.rpartition(".")[2].lower(), tmp_path / "root")

    return call


def holds(dataset, split: str, **classes: str) -> bool:
    """Whether a split has exactly these classes, each with exactly these images."""
    found = dataset[split]
    wanted = [fab.pixels(PIXELS[name]) for cls in sorted(classes) for name in classes[cls]]
    return found.classes == tuple(sorted(classes)) and np.array_equal(found.images, wanted)


FOUR = ("cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png")
ROWS = "filename,label,split\ncat/0.png,cat,train\ncat/1.png,cat,train\ndog/2.png,dog,test\ndog/3.png,dog,test\n"


def changed(old: str, new: str) -> str:
    assert ROWS.count(old) == 1
    return ROWS.replace(old, new)


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        (changed("cat/1.png,cat,train", "cat/1.png,dog,test"), ("line 3", "cat/1.png 'dog'", "folder is cat")),
        (changed("cat/1.png", "1.png").replace("1.png,cat,train", "1.png,dog,test"), ("line 3", "folder is cat")),
        (changed("cat/1.png", "cat/9.png"), ("line 3", "no image cat/9.png")),
        (changed("cat/1.png", "dog/1.png"), ("line 3", "no image dog/1.png")),
        (changed("cat/1.png", "nowhere/cat/1.png"), ("line 3", "no image nowhere/cat/1.png")),
        (changed("cat/1.png", "../cat/1.png"), ("line 3", "../cat/1.png")),
        (changed("cat/1.png", ""), ("line 3", "names no file")),
        (ROWS + "cat/1.png,dog,test\n", ("line 6", "cat/1.png", "before, it was train, cat")),
        (ROWS + "source/cat/1.png,cat,train\n", ("line 6", "and so does line 3")),
        (changed("cat/0.png,cat", "cat/0.png,"), ("line 2", "no name for a class")),
        (changed("cat/0.png,cat", "cat/0.png,../up"), ("line 2", "no name for a class")),
        (changed("cat/0.png,cat", "cat/0.png,\x1b[31mred"), ("line 2", "no name for a class")),
        (changed("dog,test\ndog/3", "dog,tset\ndog/3"), ("line 4", "'tset'")),
        (ROWS.replace("filename", "path"), ("header", "path, label, split")),
        (ROWS.replace(",train", ""), ("line 2", "2 columns instead of the header's 3")),
        (ROWS.replace(",", "|"), ("header", "filename|label|split")),
        (ROWS.replace("label", "split"), ("header", "two columns called split")),
        (changed("dog/3.png", '"dog/3.png'), ("line 5", "no CSV")),
        (ROWS.encode("utf-16-le"), ("no text", "UTF-8")),
        (ROWS.encode() + b"caf\xe9/1.png,caf\xe9,train\n", ("line 6", "not UTF-8")),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_named(csv, words, tmp_path, call):
    tree(tmp_path / "source", *FOUR)
    error = call(csv)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    "csv",
    [
        ROWS,
        ROWS.replace("cat/", "source/cat/"),
        ROWS.replace("cat/", "./cat/").replace("dog/", "dog//"),
        ROWS.replace("cat/", "").replace("dog/", ""),
        ROWS.replace("/", "\\"),
        ROWS.replace(".png", ""),
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
        ROWS.replace("\n", "\r\n"),
        ROWS.replace("\n", "\n\n"),
        ROWS.replace("filename,label,split", " Filename , Label , Split "),
        b"\xef\xbb\xbf" + ROWS.encode(),
        ROWS.encode("utf-16"),
        "number,filename,label,split\n" + "".join(f"{n},{row}\n" for n, row in enumerate(ROWS.splitlines()[1:])),
    ],
)
def test_every_way_to_write_it_is_read(csv, tmp_path, call):
    tree(tmp_path / "source", *FOUR)
    dataset = call(csv)
    assert holds(dataset, "train", cat="ab") and holds(dataset, "test", dog="cd")


def test_an_absolute_path_is_a_path(tmp_path, call):
    source = tree(tmp_path / "source", *FOUR)
    assert holds(call(ROWS.replace("cat/", f"{source}/cat/")), "train", cat="ab")


@pytest.mark.parametrize(
    ("paths", "csv", "wanted"),
    [
        pytest.param(
            ("cat/0.png", "cat/1.png", "horse/0.png", "horse/1.png"),
            "cat/0.png,cat,train\ncat/1.png,cat,train\nhorse/0.png,horse,train\nhorse/1.png,horse,train\n",
            {"cat": "ab", "horse": "cd"}, id="repeated names",
        ),
        pytest.param(
            ("cat/0.png", "cat/1.png", "horse/0.png", "horse/1.png"),
            "0.png,cat,train\n1.png,cat,train\n0.png,horse,train\n1.png,horse,train\n",
            {"cat": "ab", "horse": "cd"}, id="repeated names in the folders of their labels",
        ),
        pytest.param(
            ("cat/0.png", "cat/1.png", "horse/0.png", "horse/1.png"),
            "cat/0.png,animal,train\ncat/1.png,animal,train\nhorse/0.png,animal,train\nhorse/1.png,animal,train\n",
            {"animal": "acbd"}, id="one class of two folders",
        ),
        pytest.param(
            ("n01/0.png", "n01/1.png", "n02/0.png", "n02/1.png"),
            "n01/0.png,house finch,train\nn01/1.png,house finch,train\nn02/0.png,robin,train\nn02/1.png,robin,train\n",
            {"house finch": "ab", "robin": "cd"}, id="labels that are no folders",
        ),
        pytest.param(
            ("train/cat/0.png", "test/cat/0.png"),
            "train/cat/0.png,cat,train\ntest/cat/0.png,cat,train\n",
            {"cat": "ba"}, id="the same file in train and test",
        ),
        pytest.param(
            ("all/0.png", "all/1.png"), "0.png,cat,train\n1.png,cat,train\n", {"cat": "ab"}, id="one folder for all",
        ),
    ],
)  # fmt: skip
def test_rows_name_files_exactly(paths, csv, wanted, tmp_path, call):
    tree(tmp_path / "source", *paths)
    assert holds(call("filename,label,split\n" + csv), "train", **wanted)


def test_a_bare_name_that_several_files_have_is_asked_about(tmp_path, call):
    tree(tmp_path / "source", "a/0.png", "b/0.png", "a/1.png")
    assert "with its folder" in call("filename,label,split\n0.png,cat,train\n1.png,cat,train\n")
    fab.write(tmp_path / "source/a/0.jpg", PIXELS["p"])
    assert "0.jpg, 0.png" in call("filename,label,split\na/0,cat,train\na/1,cat,train\n")


def test_rows_name_members_of_archives(tmp_path, call):
    for cls, names in {"cat": "ab", "dog": "cd"}.items():
        members = {f"{number}.png": PIXELS[name] for number, name in enumerate(names)}
        fab.write(tmp_path / f"source/{cls}.zip", fab.zip_of(members))
    rows = "cat/0.png,cat,train\ncat/1.png,cat,train\ndog/0.png,hound,test\ndog/1.png,hound,test\n"
    dataset = call("filename,label,split\n" + rows)
    assert holds(dataset, "train", cat="ab") and holds(dataset, "test", hound="cd")


def test_no_row_can_name_an_image_of_a_pickle(tmp_path, call):
    fab.ren_pickles(tmp_path / "source", fab.dataset())
    assert "give columns split,class" in call("filename,label,split\na.png,n01000001,train\nb.png,n01000001,train\n")


# ---- whole classes


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_one_name_however_its_accents_are_written(form, tmp_path, call):
    other = "NFD" if form == "NFC" else "NFC"
    tree(tmp_path / "source", unicodedata.normalize(form, "été/é0.png"), unicodedata.normalize(form, "été/é1.png"))
    assert holds(call(unicodedata.normalize(other, "split,class\ntrain,été\n")), "train", été="ab")
    shutil.rmtree(tmp_path / "root")
    rows = "filename,label,split\né0.png,été,train\nété/é1.png,été,train\n"
    assert holds(call(unicodedata.normalize(other, rows)), "train", été="ab")


OMNIGLOT = tuple(f"{alphabet}/character0{n}/{k}.png" for alphabet in ("Greek", "Latin") for n in (1, 2) for k in (0, 1))


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_class_may_be_a_folder_in_a_folder(slash, tmp_path, call):
    tree(tmp_path / "source/images", *OMNIGLOT)
    rows = "train,Greek/character01\ntrain,Greek/character02\ntest,Latin/character01\ntest,Latin/character02\n"
    dataset = call("split,class\n" + rows.replace("/", slash))
    assert holds(dataset, "train", **{"Greek/character01": "ab", "Greek/character02": "cd"})
    assert holds(dataset, "test", **{"Latin/character01": "ef", "Latin/character02": "gh"})
    shutil.rmtree(tmp_path / "root")
    assert holds(call("split,class\ntrain,Greek\ntest,Latin\n"), "train", Greek="acbd"), "an alphabet as one class"


def test_folders_of_one_name_are_not_one_class(tmp_path, call):
    paths = [path.replace("/0.png", f"/{path[0]}0.png").replace("/1.png", f"/{path[0]}1.png") for path in OMNIGLOT]
    tree(tmp_path / "source", *paths)
    error = call("split,class\ntrain,character01\ntest,character02\n")
    assert "Greek/character01 or Latin/character01" in error and "--from of its own" in error


def test_a_class_may_be_in_several_archives(tmp_path, call):
    for number, name in enumerate("abcd"):
        fab.write(tmp_path / f"source/part{number}.zip", fab.zip_of({f"cat/{number}.png": PIXELS[name]}))
    assert holds(call("split,class\ntrain,cat\n"), "train", cat="abcd")


def test_classes_within_the_folders_of_splits_are_asked_about(tmp_path, call):
    tree(tmp_path / "source/train", *OMNIGLOT)
    assert "train,Greek/character01 (a class each) or train,Greek (one class)" in call("")
    rows = "".join(f"train,{path[:17]}\n" for path in OMNIGLOT[::2])
    assert call("split,class\n" + rows)["train"].classes[0] == "Greek/character01"


def test_folders_for_tidiness_are_no_classes(tmp_path, call):
    """tiny-ImageNet's train/n01443537/images/*.JPEG"""
    tree(tmp_path / "source", *(f"{split}/{split}ed/images/{n}.png" for split in ("train", "test") for n in (0, 1)))
    assert holds(call(""), "train", trained="ab")


def test_a_class_beside_itself_in_train_and_test(tmp_path, call):
    """Two images of one name, in folders called like splits: both belong to the class."""
    tree(tmp_path / "source", "train/cat/0.png", "test/cat/0.png", "train/dog/0.png", "test/dog/0.png")
    dataset = call("split,class\ntrain,cat\ntest,dog\n")
    assert holds(dataset, "train", cat="ba") and holds(dataset, "test", dog="dc")


def test_links_in_an_archive_are_followed_or_refused(tmp_path, call):
    """A link to a file of the archive, also by way of another link, is that file's other name; others are named."""

    def archive(**links: str) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path, data in zip(FOUR, PIXELS.values(), strict=False):
                info = tarfile.TarInfo(f"./{path}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for name, target in links.items():
                info = tarfile.TarInfo(f"./owl/{name}.png")
                info.type, info.linkname = tarfile.SYMTYPE, target
                tar.addfile(info)
        return file.getvalue()

    rows = "filename,label,split\nowl/x.png,owl,train\nowl/y.png,owl,train\ndog/2.png,dog,test\ndog/3.png,dog,test\n"
    fab.write(tmp_path / "source/all.tar", archive(y="x1.png", x="../cat/0.png", x1="./../cat/1.png"))
    assert holds(call(rows), "train", owl="ab")
    shutil.rmtree(tmp_path / "root")
    for target in ("../cat", "nowhere.png", "/etc/passwd", "x.png"):
        fab.write(tmp_path / "source/all.tar", archive(x=target))
        assert "all.tar has a link 'owl/x.png' to" in call(rows)
    (tmp_path / "source/all.tar").unlink()
    with zipfile.ZipFile(tmp_path / "source/all.zip", "w") as packed:
        info = zipfile.ZipInfo("owl/x.png")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        packed.writestr(info, "../cat/0.png")
    assert "all.zip has a link 'owl/x.png'" in call(rows)


# ---- lists that nobody asked for


def test_a_stray_list_limits_nothing(tmp_path, call):
    """It removes no image from a class, gives it none from elsewhere, and need not be a list at all."""
    tree(tmp_path / "source", *FOUR, "cat/4.png", "junk/z.png")
    rows = "filename,label\n0.png,cat\n1.png,cat\nz.png,cat\nnothing.png,dog\n"
    fab.write(tmp_path / "source/train.csv", rows.encode())
    fab.write(tmp_path / "source/junk/boxes.csv", b"filename,label_id\n0.png,7\n")
    fab.write(tmp_path / "source/junk/other.csv", b'filename,label,label\n"0.png,7\n')
    dataset = call("split,class\ntrain,cat\ntest,dog\n")
    assert holds(dataset, "train", cat="abe") and "list" not in dataset.source
    record = json.loads((tmp_path / "root/mine/dataset.json").read_text())
    assert record["splits"]["test"]["counts"] == [2]


def test_a_table_beside_the_lists_is_no_list(tmp_path, call):
    """If lists choose the images, a table with the columns filename and label_id chooses none."""
    source = tree(tmp_path / "source", *FOUR)
    fab.write(source / "train.csv", b"filename,label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n")
    fab.write(source / "boxes.csv", b"filename,label_id\n0.png,7\n")
    dataset = call("split,class\ntrain,cat\ntest,dog\n", name="fabricate.TINY")
    assert holds(dataset, "train", cat="ab")


def test_a_class_within_a_classs_folder_is_its_own(tmp_path, call):
    tree(tmp_path / "source", "animal/0.png", "animal/1.png", "animal/cat/2.png", "animal/cat/3.png")
    dataset = call("split,class\ntrain,animal\ntest,cat\n")
    assert holds(dataset, "train", animal="ab") and holds(dataset, "test", cat="cd")


def test_a_loose_file_that_begins_like_a_class_is_none_of_it(tmp_path, call):
    """ImageNet's files begin with their class, which is n and eight digits; sunflower has nine letters, too."""
    tree(tmp_path / "source", "sunflower/0.png", "sunflower/1.png", "sunflower_all.png", "other/sunflower2.png")
    assert holds(call("split,class\ntrain,sunflower\n"), "train", sunflower="ab")


@pytest.mark.parametrize("cls", ["cat", "(", "[", "+"])
def test_files_called_by_class_and_number_are_no_imagenet(cls, tmp_path, call):
    for number, name in enumerate("ab"):
        file = io.BytesIO()
        Image.fromarray(fab.pixels(PIXELS[name])).save(file, "JPEG")
        fab.write(tmp_path / f"source/{cls}/{cls}_{number}.jpg", file.getvalue())
    rows = f"{cls}/{cls}_0,{cls},train\n{cls}/{cls}_1,{cls},train\n"
    assert call("filename,label,split\n" + rows)["train"].counts == (2,)


def test_a_link_to_a_folder_does_not_hide_it(tmp_path, call):
    source = tree(tmp_path / "source", "train/cat/0.png", "train/cat/1.png", "val/dog/2.png", "val/dog/3.png")
    (source / "dev").symlink_to("val")
    assert holds(call(""), "val", dog="cd")


def test_what_a_mac_leaves_beside_classes_is_none(tmp_path, call):
    tree(tmp_path / "source", "train/cat/0.png", "train/cat/1.png")
    fab.write(tmp_path / "source/train/__MACOSX/cat/._0.png", b"left by a Mac")
    assert holds(call(""), "train", cat="ab")
