"""Foreign bytes by the hundred: a reader returns what it promises, or refuses; `scripts/fuzz.py` tries many more."""

from __future__ import annotations

import csv
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from fewshot.core.errors import UserError
from fewshot.data.importers.images import Unreadable, decode, quiet_pillow
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.table import read_table
from fewshot.data.importers.unpickle import load

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

hypothesis.settings.register_profile("here", derandomize=True, database=None, deadline=10_000, max_examples=200)
SETTINGS = settings(hypothesis.settings.get_profile("here"))
LIMITS = Limits(pixels=1_000_000, steps=10_000)


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A good file with some bytes changed, or cut short."""

    def spoil(seed: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
        data = bytearray(seed)
        for place, value in changes:
            data[place % len(data)] = value
        return bytes(data[: len(data) - cut % len(data)] if cut else data)

    change = st.tuples(st.integers(0, 1 << 16), st.integers(0, 255))
    return st.builds(spoil, st.sampled_from(seeds), st.lists(change, max_size=6), st.just(0) | st.integers(0, 1 << 16))


CONTENT = {"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [0], "b": [np.int64(1)]}}
WORDS = [*(bytes([code]) for code in range(256)), b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"K\x01", b"h\0", b"q\0"]
PROGRAMS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=3), max_size=40).map(
    lambda words: b"\x80\x04}" + b"".join(words)
)
TABLES = [b"filename,label,split\na/b.png,a,train\n", "split;class\ntrain;é\n".encode("utf-16")]
MODES = {"PNG": "RGBA", "JPEG": "RGB", "GIF": "P", "BMP": "RGB", "WEBP": "RGB", "TIFF": "L", "PPM": "L"}


@SETTINGS
@given(PROGRAMS | damaged([pickle.dumps(CONTENT, protocol) for protocol in range(6)]))
def test_a_pickle_is_a_dict_of_plain_data_or_refused(data):
    try:
        content = load(io.BytesIO(data), "some.pkl", len(data), LIMITS)
    except UserError as error:
        assert str(error).startswith("some.pkl") and str(error).isprintable()
    else:
        assert type(content) is dict


@SETTINGS
@given(st.binary(max_size=200) | damaged(TABLES))
def test_a_table_is_rows_of_its_columns_or_refused(data):
    try:
        columns, rows = read_table("some.csv", data)
    except UserError as error:
        assert str(error).startswith("some.csv")
    else:
        assert all(set(row.cells) == set(columns) for row in rows)


CELLS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=8).map(str.strip).filter(bool)


@SETTINGS
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_spreadsheet_writes_is_read_back(rows, delimiter, encoding):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([("Split", "Class"), *rows])
    columns, found = read_table("some.csv", text.getvalue().encode(encoding))
    assert columns == ("split", "class")
    assert [(row.cells["split"], row.cells["class"]) for row in found] == rows


def pictures() -> list[bytes]:
    seeds = []
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 4), np.uint8)
    for kind, mode in MODES.items():
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, kind)
        seeds.append(file.getvalue())
    return seeds


@SETTINGS
@given(damaged(pictures()))
def test_an_image_is_rgb_or_unreadable(data):
    with quiet_pillow():
        try:
            pixels = decode(data, LIMITS)
        except Unreadable as reason:
            assert str(reason)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
