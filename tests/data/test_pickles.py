"""Pickles are foreign input: plain data is read whoever wrote it, anything else is refused by name."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct

import fabricate as fab
import numpy as np
import pytest

from fewshot import prepare
from fewshot.core.console import run
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.unpickle import load

ARRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def read(data: bytes):
    return load(io.BytesIO(data), "some.pkl", len(data), Limits())


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("old_numpy", [False, True])
def test_plain_data_of_every_protocol(protocol, old_numpy):
    content = {
        "bytes": ARRAY, "column major": np.asfortranarray(ARRAY), "signed": np.array([[-1, 2]], ">i4"),
        "float": np.array([0.5, -2.0]), "none of them": np.zeros((0, 3)), "labels": [np.int64(3), np.uint8(4), 5],
        "names": {"n01": [0, 1], "n02": (2,)}, "indices": {"n01": np.array([3, 1])},
        "nothing": None, "yes": True, "empty": b"", "raw": b"\xff\x00", "text": "é",
    }  # fmt: skip
    data = pickle.dumps(content, protocol)
    if old_numpy and protocol < 4:  # names end in newlines there, so that they can be replaced
        data = data.replace(b"numpy._core", b"numpy.core")
    result = read(data)
    assert result.keys() == content.keys()
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert result[key].dtype == value.dtype and np.array_equal(result[key], value), key
    assert np.array_equal(result.pop("indices")["n01"], [3, 1])
    plain = {key: value for key, value in content.items() if not isinstance(value, np.ndarray) and key != "indices"}
    assert {key: result[key] for key in plain} == plain
    assert type(result["labels"][0]) is int


def test_what_python_2_wrote():
    """Its strings are bytes; so is the content of an array."""
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x02K\x03\x86" + dtype + b"\x89U\x06\x00\x01\x02\xfd\xfe\xfft"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state + b"b"
    result = read(b"\x80\x02}(U\x0aimage_data" + array + b"U\x0aclass_dict}U\x09n01532829]K\x01asu.")
    assert np.array_equal(result["image_data"], [[0, 1, 2], [253, 254, 255]])
    assert result["class_dict"] == {"n01532829": [1]}


class Runs:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def refused(tmp_path, capsys):
    """refused(name, content): the complaint when one pickle of a data set is replaced by this one."""

    def refused(layout: str, name: str, content: bytes) -> str:
        fab.LAYOUTS[layout](tmp_path / "source", fab.dataset())
        assert (tmp_path / "source" / name).exists()
        (tmp_path / "source" / name).write_bytes(content)
        splits = fab.split_csv(tmp_path / "splits.csv")
        argv = ["tiny", f"--from={tmp_path / 'source'}", f"--splits={splits}", f"--data-root={tmp_path / 'root'}"]
        assert run(prepare.main, argv) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and name in err
        assert not (tmp_path / "root").exists()
        return err

    return refused


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_create_a_file(protocol, tmp_path, refused):
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'w')"
    attacks = {"system": Runs(os.system, f"touch {made}"), "open": Runs(open, str(made), "w"), "eval": Runs(eval, code)}
    for name, attack in attacks.items():
        content = {"image_data": ARRAY, "class_dict": {}, "more": [attack]}
        complaint = refused("ren_pickles", "mini-imagenet-cache-val.pkl", pickle.dumps(content, protocol))
        assert name in complaint and "not plain data" in complaint
        assert not made.exists()
    pickle.loads(pickle.dumps(attacks["open"], protocol)).close()
    assert made.exists()  # the pickle does what it says if it is loaded blindly


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (range(3), "range"),
        (Runs(np.fromfile, "secret"), "fromfile"),
        (Runs(np.load, "secret"), "load"),
        (Runs(getattr, 1, "real"), "getattr"),
        (np.array([{}, 1], object), "'O8'"),
        (np.array(["text"]), "'U4'"),
        (np.zeros(2, [("a", "u1")]), "'V1'"),
        (1 + 2j, "complex"),
        (ValueError("x"), "ValueError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused_by_name(value, named, protocol):
    with pytest.raises(UserError, match=named):
        read(pickle.dumps({"data": value}, protocol))


def test_stand_ins_cannot_be_changed():
    """BUILD sets attributes of whatever it is given; a changed stand-in would serve the next pickle."""
    change = b"}X\x09\x00\x00\x00_functionNs"
    for state in (change, b"N" + change + b"\x86"):  # through __dict__, through setattr
        with pytest.raises(UserError):
            read(b"\x80\x02}U\x01xcnumpy\ndtype\n" + state + b"bs.")
    assert np.array_equal(read(pickle.dumps({"a": ARRAY}))["a"], ARRAY)


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "elsewhere" if value == "outside" else None


def test_outside_objects_are_refused():
    file = io.BytesIO()
    Persistent(file, 2).dump({"x": "outside"})
    with pytest.raises(UserError, match="outside of it"):
        read(file.getvalue())


@pytest.mark.parametrize(
    "data",
    [
        b"", b".", b"\x80\x04", b"\x80\x63.", b"}", b"0.", b"hello", b"\x80\x04}\x8c\x01ah\x05s.",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"short.",
        pickle.dumps({"a": ARRAY})[:-30],
        pickle.dumps({"a": ARRAY}, 2).replace(b"K\x03K\x04", b"K\x03K\x05"),  # a shape that its bytes do not fill
    ],
)  # fmt: skip
def test_damaged_pickles_are_one_error(data):
    with pytest.raises(UserError, match="some.pkl"):
        read(data)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image_data": ARRAY}, "uint8 array"),
        ({"image_data": np.zeros((2, 84, 84, 3))}, "uint8 array"),
        ({"class_dict": [1, 2]}, "class_dict"),
        ({"class_dict": {"n02000001": [0, 99]}}, "n02000001"),
        ({"class_dict": {"n02000001": [0, -1]}}, "n02000001"),
        ({"class_dict": {"n02000001": [0.5, 1.0]}}, "n02000001"),
        ({"class_dict": {"n02000001": "abc"}}, "n02000001"),
        ({"image_data": np.zeros((2, 0, 0, 3), np.uint8)}, "uint8 array"),
    ],
)
def test_nonsense_in_a_ren_pickle(change, word, refused):
    content = fab.ren(fab.dataset(), fab.SPLITS["val"]) | change
    assert word in refused("ren_pickles", "mini-imagenet-cache-val.pkl", pickle.dumps(content))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": [3] * 11}, "11 labels for 12 images"),
        ({"labels": ["a"] * 12}, "whole numbers"),
        ({"labels": [77] * 12}, "label 77"),
        ({"data": None}, "uint8 array"),
        ({"catname2label": {}}, "label 3"),
        ({"catname2label": {"n02000001": [3]}}, "catname2label"),
    ],
)
def test_nonsense_in_a_metaoptnet_pickle(change, word, refused):
    content = fab.metaoptnet(fab.dataset(), fab.SPLITS["val"], 3) | change
    assert word in refused("metaoptnet_pickles", "miniImageNet_category_split_val.pickle", pickle.dumps(content))


def test_images_in_column_major_order_are_images(tmp_path):
    for split, classes in fab.SPLITS.items():
        content = fab.ren(fab.dataset(), classes)
        content["image_data"] = np.asfortranarray(content["image_data"])
        fab.write(tmp_path / f"source/{split}.pkl", pickle.dumps(content))
    argv = ["tiny", f"--from={tmp_path / 'source'}", f"--splits={fab.split_csv(tmp_path / 'splits.csv')}"]
    assert run(prepare.main, [*argv, f"--data-root={tmp_path / 'root'}"]) == 0
    wanted = fab.ren(fab.dataset(), fab.SPLITS["val"])["image_data"]
    assert np.array_equal(open_dataset("tiny", tmp_path / "root")["val"].images, wanted)
