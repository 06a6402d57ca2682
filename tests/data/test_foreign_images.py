"""Images as other people have them: what is read, and as what; what is refused, and under which name."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import fabricate as fab
import numpy as np
import pytest
from commands import one_line_error
from PIL import Image

from fewshot import prepare
from fewshot.core.console import USER_ERROR, run
from fewshot.data import open_dataset
from fewshot.data.importers import images
from fewshot.data.importers.images import Unreadable, decode, quiet_pillow

RAMP = np.arange(16 * 20, dtype=np.uint16).reshape(16, 20) * 200  # to 63,800
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def pgm(values: np.ndarray) -> bytes:
    return b"P5\n%d %d\n65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()


@pytest.mark.parametrize("data", [encoded(RAMP, "PNG"), encoded(RAMP, "TIFF"), pgm(RAMP)], ids=["png", "tiff", "pgm"])
def test_16_bit_grays_are_scaled(data):
    assert np.array_equal(decode(data), np.repeat((RAMP >> 8).astype(np.uint8)[..., None], 3, axis=2))


ORIENTED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: a.swapaxes(0, 1)[::-1],
}  # fmt: skip
"""EXIF 2.3, tag 274: where row 0 and column 0 of the file are in the picture."""


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_turns_the_image(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(COLOURS, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode(data), ORIENTED[orientation](COLOURS))


def test_damaged_exif_turns_nothing():
    data = encoded(COLOURS, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with quiet_pillow():
        assert np.array_equal(decode(data), COLOURS)


def test_transparent_pixels_are_white():
    """Whatever colour they hide; half-transparent ones are half white; opaque ones stay as they are."""
    alpha = np.full((16, 20), 255, np.uint8)
    alpha[:4], alpha[4:8] = 0, 128
    wanted = COLOURS.copy()
    wanted[:4] = 255
    wanted[4:8] = np.round(COLOURS[4:8] * (128 / 255) + 255 * (127 / 255))
    result = decode(encoded(np.dstack([COLOURS, alpha]), "PNG"))
    assert np.abs(result.astype(int) - wanted).max() <= 1 and np.array_equal(result[8:], COLOURS[8:])
    gray = np.dstack([COLOURS[..., 0], alpha])
    assert (decode(encoded(gray, "PNG"))[:4] == 255).all()


def test_a_palettes_transparent_colour_is_white():
    picture = Image.new("P", (20, 16), 1)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.paste(0, (0, 0, 10, 16))
    for kind in ("PNG", "GIF"):
        pixels = decode(encoded(picture, kind, transparency=0))
        assert (pixels[:, :10] == 255).all() and (pixels[:, 10:] == (40, 50, 60)).all()


def test_tiffs_among_pngs_are_read(tmp_path):
    for number in range(4):
        kind = "TIFF" if number % 2 else "PNG"
        for split in ("train", "test"):
            data = fab.image_file(number + 10 * len(split), kind=kind)
            fab.write(tmp_path / f"source/{split}/{split}ed/{number}.{kind.lower()[:3]}", data)
    argv = ["mine", f"--from={tmp_path / 'source'}", f"--data-root={tmp_path / 'root'}"]
    assert run(prepare.main, argv) == 0
    assert open_dataset("mine", tmp_path / "root")["train"].counts == (4,)


FOREIGN = {
    "avif": b"\0\0\0\x1cftypavif" + bytes(40), "heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "dds": b"DDS " + struct.pack("<I", 124) + bytes(120), "blp": b"BLP2" + bytes(150),
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "jxl": b"\xff\x0a" + bytes(40), "psd": b"8BPS" + bytes(40),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "spi": struct.pack(">27f", 1, 8, 8, 0, 1, 0, 0, 0, 0, 0, 0, 8, 16, *([0] * 8), 512, 32, 0, 0, 0, 0),
    "tga": bytes(18), "pcx": b"\x0a\x05\x01\x08" + bytes(124), "ico": b"\0\0\1\0\1\0" + bytes(40),
}  # fmt: skip


@pytest.mark.parametrize("ending", FOREIGN)
@pytest.mark.parametrize("honest", [True, False], ids=["own-name", "called-png"])
def test_other_formats_are_refused_by_name(ending, honest, tmp_path, capsys):
    """Corrupt ones, too: their parsers are never called."""
    source = tmp_path / "source"
    for number in range(3):
        fab.write(source / f"train/cat/{number}.png", fab.image_file(number))
    path = source / f"train/cat/odd.{ending if honest else 'png'}"
    fab.write(path, FOREIGN[ending])
    assert run(prepare.main, ["mine", f"--from={source}", f"--data-root={tmp_path / 'root'}"]) == USER_ERROR
    error = one_line_error(capsys)
    assert str(path) in error and "unreadable" in error


def test_an_image_starts_no_program(tmp_path, monkeypatch):
    """For PostScript, Pillow starts Ghostscript, here one that leaves a mark under any name; `decode` must not."""
    for name in ("gs", "gswin64c", "gswin32c"):
        script = tmp_path / "bin" / name
        fab.write(script, b"#!/bin/sh\ntouch %s\n" % str(tmp_path / "started").encode())
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(x) run\n%%EOF\n"
    with contextlib.suppress(Exception):
        Image.open(io.BytesIO(data)).load()
    assert (tmp_path / "started").exists(), "what Pillow does where no formats are named"
    (tmp_path / "started").unlink()
    with pytest.raises(Unreadable, match="PostScript, which is not read"):
        decode(data)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"), (b"<html>", "no image"), (encoded(COLOURS, "PNG")[:-60], "damaged"), (b"\x89PNG", "damaged"),
        (encoded(np.ones((4, 4), np.float32), "TIFF"), "32-bit"),
        (encoded(np.ones((4, 4), np.int32), "TIFF"), "32-bit"),
    ],
    ids=["empty", "html", "cut", "head", "float", "int"],
)  # fmt: skip
def test_what_is_no_image_says_why(data, reason):
    with pytest.raises(Unreadable, match=reason):
        decode(data)


CONTAINERS = {
    "set.h5": b"\x89HDF\r\n\x1a\n" + bytes(100), "set.parquet": b"PAR1" + bytes(100),
    "set.7z": b"7z\xbc\xaf\x27\x1c" + bytes(99),
    "set.tar.zst": b"\x28\xb5\x2f\xfd" + bytes(99), "set.mat": b"MATLAB 5.0 MAT-file" + bytes(999),
    "set.npz": fab.zip_of({"images.npy": b"\x93NUMPY" + bytes(99)}), "set.tfrecord": bytes(99),
    "set.rar": b"Rar!" + bytes(99),
    "data.mdb": bytes(16) + b"\xde\xc0\xef\xbe" + bytes(99), "set.npy": b"\x93NUMPY" + bytes(99),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_source_that_is_not_understood_is_named(name, tmp_path, capsys):
    fab.write(tmp_path / "source" / name, CONTAINERS[name])
    splits = fab.split_csv(tmp_path / "splits.csv")
    for source in (tmp_path / "source", tmp_path / "source" / name):
        argv = ["tiny", f"--from={source}", f"--splits={splits}", f"--data-root={tmp_path / 'root'}"]
        assert run(prepare.main, argv) == USER_ERROR
        error = one_line_error(capsys)
        assert f"{tmp_path / 'source' / name} (" in error and "not read" in error


def test_the_formats_names_are_pillows():
    from fewshot.data.importers.kinds import READ

    Image.init()
    assert set(READ) <= set(Image.OPEN)


def test_what_libtiff_prints_is_kept_from_the_terminal(capfd, monkeypatch):
    """From many threads at once; what we print afterwards is not."""
    damaged = bytearray(encoded(COLOURS, "TIFF", compression="tiff_lzw"))
    damaged[10:14] = b"\xff\xff\xff\x7f"

    def reason(data: bytes) -> str:
        with pytest.raises(Unreadable) as refused:
            decode(data)
        return str(refused.value)

    with ThreadPoolExecutor(8) as pool:
        reasons = set(pool.map(reason, [bytes(damaged)] * 200))
    os.write(2, b"ours\n")
    assert all(each.startswith("damaged") for each in reasons)
    assert capfd.readouterr().err == "ours\n"
    monkeypatch.setattr(images, "no_stderr", contextlib.nullcontext)
    reason(bytes(damaged))
    assert "code not yet in table" in capfd.readouterr().err


def test_xmp_turns_the_image():
    data = encoded(COLOURS, "WEBP", lossless=True, xmp=b'<x:xmpmeta><r tiff:Orientation="6"/></x:xmpmeta>')
    assert np.array_equal(decode(data), ORIENTED[6](COLOURS))
