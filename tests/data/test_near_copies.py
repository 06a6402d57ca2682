"""`prepare` names images of different splits that are one picture, saved again; and only these."""

from __future__ import annotations

import io
import json

import fabricate as fab
import numpy as np
import pytest
from PIL import Image

from fewshot import prepare
from fewshot.core.console import run
from fewshot.data.importers import near


def picture(seed: int, side: int = 84) -> Image.Image:
    return Image.open(io.BytesIO(fab.image_file(seed, (side, side))))


def saved(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 6, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


COPIES = {
    "JPEG of quality 60": lambda image: saved(image, "JPEG", quality=60),
    "JPEG of quality 30": lambda image: saved(image, "JPEG", quality=30),
    "WebP": lambda image: saved(image, "WEBP", quality=60),
    "larger": lambda image: saved(image.resize((300, 300), Image.Resampling.BILINEAR), "JPEG", quality=75),
    "smaller": lambda image: saved(image.resize((48, 48), Image.Resampling.BILINEAR)),
    "noisy": lambda image: saved(noisy(image)),
}
OTHERS = {
    "the very same": saved,  # equal images have a note of their own
    "mirrored": lambda image: saved(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "half of it": lambda image: saved(image.crop((0, 0, 42, 84)).resize((84, 84))),
    "its colours turned": lambda image: saved(Image.merge("RGB", image.split()[1:] + image.split()[:1])),
}


def prepared(tmp_path, change, capsys) -> tuple[str, list]:
    """What prepare says of five images in train and, in test, five others and a changed copy of one in train."""
    for number in range(5):
        fab.write(tmp_path / f"source/train/cat/{number}.png", saved(picture(number)))
        fab.write(tmp_path / f"source/test/dog/{number}.png", saved(picture(100 + number)))
    fab.write(tmp_path / "source/test/dog/9.png", change(picture(3)))
    assert run(prepare.main, ["mine", f"--from={tmp_path / 'source'}", f"--data-root={tmp_path}"]) == 0
    details = json.loads((tmp_path / "mine" / "dataset.json").read_text())["details"]
    return capsys.readouterr().out, details["near_copies"]


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_that_was_saved_anew_is_named(tmp_path, capsys, how):
    out, found = prepared(tmp_path, COPIES[how], capsys)
    assert found == [["train/cat/3.png", "test/dog/9.png"]]
    assert "copies that were saved anew: 1: train/cat/3.png ~ test/dog/9.png." in out


@pytest.mark.parametrize("how", OTHERS)
def test_nothing_else_is_named(tmp_path, capsys, how):
    out, found = prepared(tmp_path, OTHERS[how], capsys)
    assert not found and "saved anew" not in out


@pytest.mark.parametrize("side", [16, 28, 84])
def test_pictures_with_nothing_in_them_are_none_and_cost_little(side):
    """10,000 equal hashes a split: not one of 100,000,000 pairs is looked at."""
    blank = np.full((10_000, side, side, 3), 255, np.uint8)
    blank[:, 0, 0] = np.arange(10_000)[:, None] % 256
    images = {"train": blank, "test": blank[::-1]}
    assert near.near_copies({split: near.cells(each) for split, each in images.items()}, images) == []


def test_no_pair_of_random_images_is_near_and_positions_are_right():
    rng = np.random.default_rng(1)
    images = {split: rng.integers(0, 256, (5000, 20, 20, 3), np.uint8) for split in ("train", "val", "test")}
    images["val"][4321] = images["test"][1234] ^ 1
    found = near.near_copies({split: near.cells(each) for split, each in images.items()}, images)
    assert found == [(("val", 4321), ("test", 1234))]


def test_where_all_images_are_alike_nothing_is_said_of_copies():
    rng = np.random.default_rng(2)
    base = np.tile(rng.integers(0, 200, (20, 20, 20, 3), np.uint8), (5, 1, 1, 1))
    images = {split: base + rng.integers(0, 9, base.shape, np.uint8) for split in ("train", "test")}
    assert near.near_copies({split: near.cells(each) for split, each in images.items()}, images) is None
