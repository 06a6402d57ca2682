"""A store is files, too: if they are edited or damaged, one line says so before anything is trained on them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import fabricate as fab
import numpy as np
import pytest

from fewshot import prepare
from fewshot.core.console import run
from fewshot.core.errors import UserError
from fewshot.data import dataset_json, open_dataset, store


@pytest.fixture
def folder(tmp_path) -> Path:
    """A store of two splits, of 3 and 2 images."""
    folder = tmp_path / "mine"
    folder.mkdir()
    entries = {}
    for split, counts in (("train", [2, 1]), ("test", [2])):
        images = np.arange(sum(counts) * 16 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(-1, 16, 16, 3)
        digest = store.write_array(folder / f"{split}.npy", images.shape, [images])
        classes = [f"{split}{number}" for number in range(len(counts))]
        entries[split] = {"classes": classes, "counts": counts, "shape": list(images.shape), "sha256": digest}
    dataset_json.write(folder, "mine", entries, "noise", [], {})
    return folder


def edit(folder: Path, change) -> None:
    """Change dataset.json, and give it the fingerprint that then belongs to it."""
    record = json.loads((folder / "dataset.json").read_text())
    change(record)
    record["fingerprint"] = dataset_json.fingerprint(record["splits"])
    (folder / "dataset.json").write_text(json.dumps(record))


def replaced(split: str, **values):
    return lambda record: record["splits"][split].update(values)


RECORDS = {
    "another side": replaced("test", shape=[2, 32, 32, 3]),
    "not square": replaced("test", shape=[2, 16, 48, 3]),
    "two axes": replaced("test", shape=[2, 768]),
    "gray": replaced("test", shape=[2, 16, 48, 1]),
    "fewer images": replaced("train", counts=[1, 1]),
    "no images": replaced("train", counts=[3, 0]),
    "negative": replaced("train", counts=[4, -1]),
    "true": replaced("train", counts=[2, True]),
    "fractions": replaced("train", counts=[1.5, 1.5]),
    "one class twice": replaced("train", classes=["a", "a"]),
    "fewer classes": replaced("train", classes=["a"]),
    "numbered classes": replaced("train", classes=[1, 2]),
    "text for classes": replaced("train", classes="ab"),
    "a digest that is a list": replaced("train", sha256=[]),
    "another split": lambda record: record["splits"].update({"../../up": record["splits"]["test"]}),
    "no splits": lambda record: record["splits"].clear(),
    "a name that climbs": lambda record: record.update(name="../up"),
    "notes that are a number": lambda record: record.update(notes=3),
    "notes of numbers": lambda record: record.update(notes=[3]),
    "a mean that no float holds": lambda record: record.update(normalisation={"mean": [10**400] * 3, "std": [1] * 3}),
    "a source that is a list": lambda record: record.update(source=[]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_cannot_be_is_damaged(name, folder):
    edit(folder, RECORDS[name])
    with pytest.raises(UserError, match="dataset.json is damaged"):
        open_dataset("mine", folder.parent)


def test_a_store_of_format_1_is_read_and_known_by_both_fingerprints(folder):
    today = open_dataset("mine", folder.parent)
    record = json.loads((folder / "dataset.json").read_text())
    former = dataset_json.former_fingerprint("mine", record["splits"])
    (folder / "dataset.json").write_text(json.dumps(record | {"format": 1, "fingerprint": former}))
    old = open_dataset("mine", folder.parent)
    assert old.fingerprints == today.fingerprints == {"fingerprint": today.fingerprint, "former_fingerprint": former}
    assert old.is_known_as(former) and old.is_known_as(today.fingerprint) and not old.is_known_as("")
    for wrong in ({"format": 1}, {"format": 2, "fingerprint": former}):
        (folder / "dataset.json").write_text(json.dumps(record | wrong))
        with pytest.raises(UserError, match="is of another format or was edited"):
            open_dataset("mine", folder.parent)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"3", b"null", b'{"splits": []}', b'{"splits": null}', b'{"splits": {"train": 3}}', b"[" * 100_000,
     b"\xff\xfe", b'{"a": NaN}', b"9" * 5000],
)  # fmt: skip
def test_what_is_no_record_is_damaged(text, folder):
    (folder / "dataset.json").write_bytes(text)
    with pytest.raises(UserError, match="dataset.json is damaged"):
        open_dataset("mine", folder.parent)


def npy(images: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, images)
    return file.getvalue()


ARRAYS = {
    "none": None, "empty": b"", "text": b"images", "zip": fab.zip_of({"a.npy": npy(np.zeros(3))}),
    "header": b"\x93NUMPY\x01\x00\x76\x00{'descr': (" + b"(" * 107, "cut": npy(np.zeros((2, 16, 16, 3), np.uint8))[:-9],
    "floats": npy(np.zeros((2, 16, 16, 3), np.float32)), "fewer": npy(np.zeros((1, 16, 16, 3), np.uint8)),
    "column major": npy(np.asfortranarray(np.zeros((2, 16, 16, 3), np.uint8))),
    "pickles": b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (2, 16, 16, 3), }      \n",
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_not_what_the_record_says(name, folder):
    path = folder / "test.npy"
    path.unlink()
    if ARRAYS[name] is not None:
        path.write_bytes(ARRAYS[name])
    with pytest.raises(UserError, match=r"test\.npy (is missing|is damaged|does not match)"):
        open_dataset("mine", folder.parent)


def test_an_array_that_never_answers(folder):
    (folder / "test.npy").unlink()
    os.mkfifo(folder / "test.npy")
    with pytest.raises(UserError, match="no file"):
        open_dataset("mine", folder.parent)


@pytest.mark.parametrize("name", ["../mine", "mine/../mine", "/mine", "..", "", "a b", "mine\n"])
def test_a_name_is_no_path(name, folder):
    with pytest.raises(UserError, match="no name of a data set"):
        open_dataset(name, folder.parent)


def test_what_is_not_prepared_says_how(tmp_path):
    with pytest.raises(UserError, match="prepare flowers --from PATH --splits CSV --data-root"):
        open_dataset("flowers", tmp_path)
    with pytest.raises(UserError, match="prepare mini-imagenet --from PATH --data-root"):
        open_dataset("mini-imagenet", tmp_path)


def test_prepare_says_which_splits_are_absent_and_what_leaks(tmp_path, capsys):
    source = tmp_path / "source"
    for number in range(3):
        fab.write(source / f"train/cat/{number}.png", fab.image_file(number))
        fab.write(source / f"test/dog/{number}.png", fab.image_file(number or 99))  # the last two are train's

    def prepared(name: str) -> int:
        return run(prepare.main, [name, f"--from={source}", f"--data-root={tmp_path}", "--size=16"])

    assert prepared("one") == 2
    assert "2 of its 3 images are copies" in (error := capsys.readouterr().err) and "a leak between splits" in error
    fab.write(source / "test/dog/1.png", fab.image_file(77))
    for name in ("one", "other"):
        assert prepared(name) == 0
        out = capsys.readouterr().out
        assert "There is no val split: `train` needs train, val and test" in out
        assert "Leak between splits: test/dog/2.png = train/cat/2.png." in out
    one, other = open_dataset("one", tmp_path), open_dataset("other", tmp_path)
    assert one.fingerprint == other.fingerprint and one.former_fingerprint != other.former_fingerprint
    assert one.is_known_as(one.former_fingerprint) and not one.is_known_as(other.former_fingerprint)
    assert one.fingerprint != open_dataset("glyphs").fingerprint


def test_a_stores_own_normalisation_goes_before_the_specifications(folder):
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    edit(folder, lambda record: record.update(normalisation=own))
    data = store.open_store("mine", folder.parent, normalisation=((0.5,) * 3, (0.5,) * 3))
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
