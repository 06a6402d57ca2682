"""The embedded data set: its shape, its splits, that it is what the script builds, and damage to it."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.data.dataset_json import fingerprint
from fewshot.data.names import SPLITS
from fewshot.data.specs import glyphs
from fewshot.data.store import pixel_digest

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_glyphs.py"


@pytest.fixture(scope="module")
def about() -> dict:
    """What the file says about its own making."""
    with np.load(glyphs.FILE) as archive:
        return json.loads(str(archive["about"]))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """scripts/build_glyphs.py as a module."""
    pytest.importorskip("matplotlib", reason="the build script needs matplotlib")
    spec = importlib.util.spec_from_file_location("build_glyphs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alphabets(split: str) -> set[str]:
    return {name.split("/")[0] for name in glyphs.load()[split].classes}


def test_it_is_large_enough():
    dataset = glyphs.load()
    assert sum(len(split.classes) for split in dataset.splits.values()) >= 200
    assert all(len(split.classes) >= 30 for split in dataset.splits.values())  # 20-way episodes
    assert {count for split in dataset.splits.values() for count in split.counts} == {24}
    assert glyphs.FILE.stat().st_size <= 4e6


@pytest.mark.parametrize("name", SPLITS)
def test_images_are_gray_rgb_and_read_only(name):
    split = glyphs.load()[name]
    assert split.images.shape == (sum(split.counts), 32, 32, 3)
    assert split.images.dtype == np.uint8 and split.images.flags.c_contiguous
    assert (split.images == split.images[..., :1]).all()
    assert np.isin(split.images, np.arange(16) * 17).all()
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0


@pytest.mark.parametrize("name", SPLITS)
def test_every_image_shows_something_and_no_two_are_equal(name):
    images = glyphs.load()[name].images[..., 0]
    assert (np.ptp(images, axis=(1, 2)) >= 68).all()
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


@pytest.mark.parametrize("name", SPLITS)
def test_classes_stand_in_the_order_of_their_names(name):
    classes = glyphs.load()[name].classes
    assert list(classes) == sorted(set(classes))


def test_splits_share_no_alphabet():
    train, val, test = (alphabets(name) for name in SPLITS)
    assert train and val and test
    assert not (train & val or train & test or val & test)


def test_no_two_classes_look_alike():
    """Mean images, which typefaces and jitter blur alike: a check independent of the script's own."""
    splits = glyphs.load().splits.values()
    gray = np.concatenate([split.images[..., 0].reshape(-1, 24, 32 * 32) for split in splits])
    means = gray.mean(1) - gray.mean((0, 1))
    means -= means.mean(1, keepdims=True)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    likeness = np.triu(means @ means.T, 1)
    names = [name for split in splits for name in split.classes]
    alike = [(names[i], names[j]) for i, j in np.argwhere(likeness > 0.96)]
    assert not alike


def test_the_fingerprint_is_the_stores():
    dataset = glyphs.load()
    entries = {
        name: {
            "classes": list(split.classes),
            "counts": list(split.counts),
            "shape": list(split.images.shape),
            "sha256": pixel_digest(split.images),
        }
        for name, split in dataset.splits.items()
    }
    assert dataset.fingerprint == fingerprint(entries)
    assert open_dataset("glyphs", "no such root") is dataset


def test_opening_is_quick():
    begin = time.process_time()
    glyphs.read(glyphs.FILE)
    assert time.process_time() - begin < 2  # about 0.2 s on an idle processor


def test_licences_stand_beside_it(about):
    text = glyphs.FILE.with_suffix(".LICENSE.txt").read_text(encoding="utf-8")
    assert "Bitstream Vera Fonts Copyright" in text and "SIL OPEN FONT LICENSE Version 1.1" in text
    assert all(face in text for face in about["faces"])
    assert f"matplotlib {about['versions']['matplotlib']}" in text


def test_the_script_builds_what_is_stored(build, about):
    if build.versions() != about["versions"]:
        pytest.skip(f"glyphs.npz was built with {about['versions']}, here are {build.versions()}")
    for name in SPLITS:
        split = glyphs.load()[name]
        images = split.images[..., 0].reshape(-1, 24, 32, 32)
        for number in (0, len(split.classes) // 2, len(split.classes) - 1):
            char = chr(int(split.classes[number].rpartition("+")[2], 16))
            np.testing.assert_array_equal(build.render_class(char) * 17, images[number])


def test_writing_twice_gives_the_same_bytes(build, tmp_path):
    splits = {name: ([f"{name}/U+0041"], np.full((1, 2, 32, 32), 3, np.uint8)) for name in SPLITS}
    for name in ("a.npz", "b.npz"):
        build.write(tmp_path / name, splits)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert glyphs.read(tmp_path / "a.npz")["val"].images.max() == 3 * 17


def test_no_missing_glyph_is_drawn(build):
    """A face draws a box for a character that it lacks; render_class leaves such faces out."""
    lao = 0x0E81
    assert lao in build.characters_of("DejaVuSans") and lao not in build.characters_of("DejaVuSerif")
    for split in glyphs.load().splits.values():
        for name in split.classes:
            assert int(name.rpartition("+")[2], 16) in build.characters_of(build.REFERENCE)


WHOLE = glyphs.FILE.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not a zip file",
        WHOLE[:1000],
        WHOLE[:-10],
        WHOLE[: len(WHOLE) // 2] + b"\0" * 64 + WHOLE[len(WHOLE) // 2 + 64 :],
    ],
    ids=["missing", "empty", "text", "head only", "tail lost", "overwritten"],
)
def test_damage_is_one_line_with_the_remedy(content, tmp_path):
    path = tmp_path / "glyphs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="install fewshot again") as caught:
        glyphs.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_pixels_are_damage_too(tmp_path):
    """A valid zip, but not what was built: the fingerprint tells."""
    with np.load(glyphs.FILE) as archive:
        arrays = dict(archive)
    arrays["test_levels"][0, 0, 0, 0] ^= 1
    np.savez_compressed(tmp_path / "glyphs.npz", **arrays)
    with pytest.raises(UserError, match="not those that were built"):
        glyphs.read(tmp_path / "glyphs.npz")
