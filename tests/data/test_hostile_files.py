"""Files made to do harm: each is refused in one line, quickly, and without taking much memory."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import re
import socket
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from functools import partial
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest
from commands import one_line_error
from PIL import Image

from fewshot import prepare
from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data.importers.images import Unreadable, decode, quiet_pillow
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.unpickle import load

MB = 1 << 20


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(*more) -> the one line with which prepare refuses tmp_path/source; nothing is written."""

    def refused(*more: str) -> str:
        argv = ["mine", f"--from={tmp_path / 'source'}", f"--data-root={tmp_path / 'root'}", *more]
        assert run(prepare.main, argv) == USER_ERROR
        assert not any((tmp_path / "root").glob("*"))
        return one_line_error(capsys)

    return refused


def three(folder: Path) -> Path:
    """A class of three images."""
    for number in range(3):
        fab.write(folder / f"train/cat/{number}.png", fab.image_file(number, (16, 16)))
    return folder


# ---- what is no file


def pipe(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


NO_FILES = {
    "pipe": (pipe, "a named pipe, not a file"),
    "socket": (unix_socket, "a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
    "broken": (lambda path: path.symlink_to(path.parent / "nowhere"), "a broken link"),
    "circle": (lambda path: path.symlink_to(path), "a broken link"),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["train/cat/9.png", "train/cat.zip", "splits"])
def test_what_is_no_file_is_named(kind, name, tmp_path, refused):
    source = three(tmp_path / "source")
    make, words = NO_FILES[kind]
    path = tmp_path / "splits.csv" if name == "splits" else source / name
    make(path)
    assert f"{path} is {words}" in refused(*([f"--splits={path}"] if name == "splits" else []))


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_source_that_is_no_file_is_named(kind, tmp_path, refused):
    make, words = NO_FILES[kind]
    make(tmp_path / "source")
    splits = fab.split_csv(tmp_path / "splits.csv")
    assert words in refused(f"--splits={splits}")


@pytest.mark.parametrize("name", ["", "train", "train/cat"])
def test_a_folder_that_may_not_be_read_is_named(name, tmp_path, refused, monkeypatch):
    folder = three(tmp_path / "source") / name
    fab.closed(folder, monkeypatch)
    assert f"{folder} cannot be read (Permission denied)" in refused()


def test_folders_in_a_circle_end(tmp_path):
    source = three(tmp_path / "source")
    (source / "train/cat/again").symlink_to(source)
    assert run(prepare.main, ["mine", f"--from={source}", f"--data-root={tmp_path / 'root'}", "--size=16"]) == 0


NAMES = [b"\x1b[2J\x07.png", b"\xff\xfe.png", "\u202egnp.exe.png".encode(), b"two\nlines.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_names_are_nothing_that_a_terminal_obeys(name, packed, tmp_path, refused):
    """Neither where an image is unreadable, nor where two of the name are one image."""
    source = three(tmp_path / "source")
    if packed:
        fab.write(source / "train/cat.zip", fab.zip_of({name.decode("latin1"): b"no image"}))
    else:
        with open(os.path.join(os.fsencode(source / "train/cat"), name), "wb") as file:
            file.write(b"no image")
    splits = tmp_path / "splits.csv"
    splits.write_text("split,class\ntrain,cat\n")
    assert "unreadable" in (error := refused(f"--splits={splits}")) and error.isprintable()


def test_folders_in_folders_end(tmp_path):
    """Deeper than Python could follow by recursion."""
    source = three(tmp_path / "source")
    here = os.getcwd()
    try:
        os.chdir(source)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    assert run(prepare.main, ["mine", f"--from={source}", f"--data-root={tmp_path / 'root'}", "--size=16"]) == 0
    os.removedirs(source.joinpath(*["d"] * 1200))  # before pytest tries to, by recursion


# ---- archives


def nameless_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("."), b"data")
        archive.filelist[-1].filename = archive.filelist[-1].orig_filename = ""
    return file.getvalue()


def encrypted_zip() -> bytes:
    data = bytearray(fab.zip_of({"cat/0.png": fab.image_file(1)}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip_of_deflate64() -> bytes:
    """As 7-Zip makes on demand: sound, and not read by the standard library."""
    data = bytearray(fab.zip_of({"cat/0.png": fab.image_file(1)}))
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 9
    return bytes(data)


def zeros(size: int) -> bytes:
    """gzip of `size` zeros, made quickly: deflate's blocks of 1 MB repeat."""
    machine = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(machine.compress(bytes(MB)) for _ in range(size // MB)), machine.flush()])


def zip_of_a_large_jpg(declared: int) -> bytes:
    """Its directory says that a member of 100 bytes has `declared`."""
    data = bytearray(fab.zip_of({"cat/0.jpg": bytes(100)}))
    directory = data.index(b"PK\x01\x02")
    data[22:26] = data[directory + 24 : directory + 28] = struct.pack("<I", declared)
    return bytes(data)


def zip_in_zips(depth: int) -> bytes:
    data = fab.zip_of({"cat/0.png": fab.image_file(1)})
    for _ in range(depth):
        data = fab.zip_of({"inner.zip": data})
    return data


def sparse_tar(size: int) -> bytes:
    """As GNU tar writes a file that is nothing but a hole."""
    info = tarfile.TarInfo("cat/0.jpg")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0",
                        "GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1"}  # fmt: skip
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def tar_that_turns_back() -> bytes:
    """A member of negative size: after it, the one before it comes again."""
    data = bytearray(fab.tar_of({"cat/0.png": bytes(512), "cat/1.png": bytes(512)}))
    data[1024 + 124 : 1024 + 136] = b"\xff" * 4 + (-1536).to_bytes(8, "big", signed=True)
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    return bytes(data)


def tar_of_a_lost_link() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("cat/0.png")
        info.type, info.linkname = tarfile.LNKTYPE, "nowhere.png"
        archive.addfile(info)
    return file.getvalue()


ARCHIVES = {
    "nameless.zip": (nameless_zip, "has a member called ''"),
    "up.zip": (lambda: fab.zip_of({"../cat/0.png": b"x"}), "has a member called '../cat/0.png'"),
    "up.tar": (lambda: fab.tar_of({"cat/../../0.png": b"x"}), "has a member called 'cat/../../0.png'"),
    "encrypted.zip": (encrypted_zip, "is encrypted"),
    "deflate64.zip": (zip_of_deflate64, "packed in a way that is not read"),
    "large.zip": (lambda: zip_of_a_large_jpg(4_000_000_000), "unpacks to 3.7 GB at least, above the limit of 1.0 GB"),
    "picture.zip": (lambda: zip_of_a_large_jpg(300 * MB), "has 300 MB, above the limit of 256 MB"),
    "deep.zip": (lambda: zip_in_zips(9), "is an archive in 8 archives"),
    "zeros.gz": (lambda: zeros(4 * MB), "unpacks to 2 MB at least, above the limit of 1 MB"),
    "twice.gz": (lambda: gzip.compress(zeros(4 * MB)), "above the limit of 1 MB"),
    "sparse.tar": (lambda: sparse_tar(4_000_000_000), "unpacks to 3.7 GB at least"),
    "back.tar": (tar_that_turns_back, "truncated or corrupt"),
    "link.tar": (tar_of_a_lost_link, "truncated or corrupt"),
    "cut.bz2": (lambda: bz2.compress(bytes(9999))[:-9], "truncated or corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_harm_are_refused(name, tmp_path, refused, monkeypatch):
    """Those of gzip under smaller limits: unpacking 1 GB takes a while."""
    make, words = ARCHIVES[name]
    if name.endswith(".gz"):
        monkeypatch.setattr("fewshot.data.importers.limits.Limits", partial(Limits, unpacked=MB, ratio=10))
    fab.write(tmp_path / "source" / name, make())
    for number in range(3):
        fab.write(tmp_path / f"source/cat/a{number}.png", fab.image_file(number, (16, 16)))
    fab.write(tmp_path / "splits.csv", b"split,class\ntrain,cat\n")
    error = refused(f"--splits={tmp_path / 'splits.csv'}")
    assert words in error and name in error, error


def test_a_hard_link_in_a_tar_is_an_image(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(3):
            data = fab.image_file(number, (16, 16))
            info = tarfile.TarInfo(f"all/{number}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo(f"cat/{number}.png")
            link.type, link.linkname = tarfile.LNKTYPE, info.name
            archive.addfile(link)
    fab.write(tmp_path / "source/set.tar", file.getvalue())
    fab.write(tmp_path / "splits.csv", b"split,class\ntrain,cat\n")
    argv = ["mine", f"--from={tmp_path / 'source'}", f"--splits={tmp_path / 'splits.csv'}", "--size=16"]
    assert run(prepare.main, [*argv, f"--data-root={tmp_path / 'root'}"]) == 0


def test_a_flag_allows_more(tmp_path, refused, monkeypatch):
    with pytest.raises(UserError, match="--limits 0"):
        prepare.main(["mine", f"--from={tmp_path}", "--limits=0", f"--splits={tmp_path / 'x.csv'}"])
    monkeypatch.setattr("fewshot.data.importers.limits.Limits", partial(Limits, pixels=50_000))
    source = three(tmp_path / "source")
    fab.write(source / "train/cat/large.png", png(400, 300))
    assert "large.png (400x300 px" in (error := refused("--size=16")) and "--limits 3 allows it" in error
    assert run(prepare.main, ["mine", f"--from={source}", f"--data-root={tmp_path / 'root'}", "--limits=3"]) == 0


# ---- images


def png(width: int, height: int) -> bytes:
    """Black, of one bit a pixel: 21 KB for 13,300 x 13,300."""
    rows = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join([*(rows.compress(row) for _ in range(height)), rows.flush()])

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_of_a_large_tile() -> bytes:
    """8 x 8 pixels, in a tile of 40,000 x 40,000."""
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
            (322, 4, 40_000), (323, 4, 40_000), (324, 4, 8), (325, 4, 8)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 16) + zlib.compress(b"")[:8] + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_of_many_scans() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 300 + data[-2:]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(13_300, 13_300), "13,300x13,300 px, above the limit of 90,000,000 pixels; if you trust it, --limits 2"),
        (png(178_000_000, 1), "178,000,000x1 px"),
        (tiff_of_a_large_tile(), "40,000x40,000 px"),
        (jpeg_of_many_scans(), "scans"),
    ],
    ids=["square", "line", "tile", "scans"],
)
def test_bombs_are_refused_before_they_are_decoded(data, words):
    tracemalloc.start()
    try:
        with quiet_pillow(), pytest.raises(Unreadable, match=words):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 30 * MB
    finally:
        tracemalloc.stop()


def test_limits_are_multiplied():
    data = png(400, 300)
    with pytest.raises(Unreadable, match="--limits 3 allows it"):
        decode(data, Limits(pixels=50_000))
    assert decode(data, Limits(pixels=50_000).times(3)).shape == (300, 400, 3)


# ---- pickles


PICKLES = {
    "tuples as a key": (b"\x80\x04})" + b"\x85" * 50_000 + b"Ns.", "tuple for a key"),
    "tuples in tuples": (b"\x80\x04)" + b"\x85" * 50_000 + b".", "a dict was expected, the pickle holds a tuple"),
    "lists in lists": (b"\x80\x04" + b"]" * 40_000 + b"a" * 39_999 + b".", "the pickle holds a list"),
    "twice as large, sixty times": (b"\x80\x04}N" + b"2\x86" * 60 + b"Ns.", "tuple for a key"),
    "the same in a set": (b"\x80\x04}\x8f(N" + b"2\x86" * 60 + b"\x90.", "tuple for a key"),
    "the same for a type": (b"\x80\x04}cnumpy\ndtype\nN" + b"2\x86" * 60 + b"\x85Rs.", "array of type 'tuple'"),
    "a memo of 268 million": (b"\x80\x04}r\xff\xff\xff\x0f.", ""),
    "bytes that are not there": (b"\x80\x04}\x8e" + struct.pack("<Q", 1 << 33) + b"x.", "ends too early"),
    "text that is not there": (b"\x80\x04}X\xff\xff\xff\x7fx.", "ends too early"),
    "a negative length": (b"\x80\x02}T\xff\xff\xff\xffx.", "ends too early"),
    "a large integer": (b"\x80\x04}\x8b" + struct.pack("<i", 5000) + b"\xff" * 5000 + b"Ns.", "integer of 5,000 bytes"),
    "many digits": (b"\x80\x02}I" + b"9" * 5000 + b"\nNs.", "line"),
    "a long key": (b"\x80\x04}X" + struct.pack("<I", 5000) + b"k" * 5000 + b"Ns.", "key of 5,000 characters"),
    "copies of its text": (
        b"\x80\x02}X" + struct.pack("<I", MB) + b"k" * MB + b"q\0"
        + b"0c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R" * 20 + b".", "copies more bytes than it has",
    ),
    "no end": (b"\x80\x04}" + b"N0" * 60_000, "takes more than 100,000 steps"),
    "a call of what it made": (b"\x80\x04}N)R.", "calls what is no function"),
    "state of a list": (b"\x80\x04]}b.", "sets attributes of a list"),
    "an old instance": (b"(ios\nsystem\n.", "asks for os.system"),
    "an extension": (b"\x80\x04\x82\x01.", "builds objects"),
    "below its mark": (b"\x80\x04N(0a.", "truncated or corrupt"),
    "more out than in": (b"\x80\x04(\x86.", "truncated or corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_harm_are_refused(name):
    data, words = PICKLES[name]
    tracemalloc.start()
    try:
        if words:
            with pytest.raises(UserError, match=words):
                load(io.BytesIO(data), "some.pkl", len(data), Limits(steps=100_000))
        else:
            assert load(io.BytesIO(data), "some.pkl", len(data), Limits(steps=100_000)) == {}
        assert tracemalloc.get_traced_memory()[1] < 60 * MB
    finally:
        tracemalloc.stop()


def test_long_names_of_classes_in_a_pickle_are_not_cut(tmp_path):
    """Only those in messages are: these two begin alike."""
    long = "x" * 100
    content = {
        "image_data": np.arange(4 * 16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(4, 16, 16, 3) // 7,
        "class_dict": {long + "1": [0, 1], long + "2": [2, 3]},
    }
    content["image_data"][..., 0] = np.arange(4)[:, None, None]
    fab.write(tmp_path / "source/set.pkl", pickle.dumps(content))
    (tmp_path / "splits.csv").write_text(f"split,class\ntrain,{long}1\ntest,{long}2\n")
    argv = ["mine", f"--from={tmp_path / 'source'}", f"--splits={tmp_path / 'splits.csv'}", "--size=16"]
    assert run(prepare.main, [*argv, f"--data-root={tmp_path / 'root'}"]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_data": np.zeros((1, 9, 10_000_001, 3), np.uint8)[:, :0]}, "one uint8 array"),
        ({"class_dict": {str(n): [0, 1] for n in range(9)}}, "more numbers than there are images"),
        ({"class_dict": {"cat": np.zeros((3, 3), np.int64)}}, "a list of whole numbers"),
        ({"class_dict": {"\x1b[31m": [7]}}, r"class \?\[31m points outside"),
    ],
    ids=["empty", "shared lists", "table", "terminal"],
)
def test_pickles_of_more_than_their_images(change, words, tmp_path, refused):
    content = {"image_data": np.zeros((4, 8, 8, 3), np.uint8), "class_dict": {"cat": [0, 1]}} | change
    fab.write(tmp_path / "source/train/set.pkl", pickle.dumps(content))
    fab.write(tmp_path / "splits.csv", b"split,class\ntrain,cat\n")
    assert re.search(words, refused(f"--splits={tmp_path / 'splits.csv'}"))
