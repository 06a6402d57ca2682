"""A run folder whose files may say anything: each reader reads it, or refuses it in one line.

A file with a changed value is sealed again, so that readers get to see the value. One with changed bytes is not: that
is for the digests to notice.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from boards import reseal
from foreign import places
from run_readers import read_it_all

hypothesis = pytest.importorskip("hypothesis", reason="comes with pip install -e '.[test]'")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

TEXTS = ("config.json", "environment.json", "result.json", "metrics.jsonl")
ARRAYS = ("episodes-glyphs-test-5w1s15q.npy", "tasks-glyphs-test-5w5s15q.npz", "checkpoint.pt", "best.safetensors")
EXAMPLES = int(os.environ.get("FEWSHOT_FUZZ", 0))  # set by hand, for instance to 10000: then they differ each time
FEW = settings(
    max_examples=EXAMPLES or 60, deadline=None, derandomize=not EXAMPLES, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-2, 2), st.floats(), st.text(max_size=8),
    st.sampled_from(["proto", "none", "../../x", "a.b", "conv4", "targetdrop@9", "a..b", "1" * 5000, 10**400, 2**62]),
)  # fmt: skip
KEYS = st.text(max_size=3)
VALUES = st.recursive(ODD, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=3))


@pytest.fixture(scope="module")
def copy(small_run, tmp_path_factory) -> Path:
    return shutil.copytree(small_run, tmp_path_factory.mktemp("fuzz") / "run")


@contextlib.contextmanager
def changed(path: Path, data: bytes, again: bool = False):
    before = {path: path.read_bytes() for path in path.parent.glob("*.json*")} | {path: path.read_bytes()}
    path.write_bytes(data)
    if again:
        with contextlib.suppress(Exception):  # what is too odd to be sealed stays as it is
            reseal(path.parent)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for each, content in before.items():
            each.write_bytes(content)


@FEW
@given(name=st.sampled_from(TEXTS), where=st.integers(0, 10**6), value=VALUES, drop=st.booleans())
def test_any_value_at_any_place(copy, name, where, value, drop):
    text = (copy / name).read_text()
    lines = text.splitlines() if name.endswith("l") else [text]
    number = where % len(lines)
    parsed = [json.loads(lines[number])]
    *path, last = (0, *places(parsed[0])[where % len(places(parsed[0]))])
    holder = parsed
    for key in path:
        holder = holder[key]
    if drop and path:
        del holder[last]
    else:
        holder[last] = value
    lines[number] = json.dumps(parsed[0])
    with changed(copy / name, ("\n".join(lines) + "\n").encode(), again=True):
        read_it_all(copy)


@FEW
@given(
    name=st.sampled_from([*TEXTS, *ARRAYS]), where=st.integers(0, 10**6), piece=st.binary(max_size=6),
    how=st.integers(0, 3),
)  # fmt: skip
def test_any_bytes_in_any_file(copy, name, where, piece, how):
    data = (copy / name).read_bytes()
    at = where % (len(data) if how else min(len(data), 400))  # headers more often
    end = {0: at + len(piece), 1: at + len(piece), 2: at, 3: len(data)}[how]  # overwritten, inserted, cut off
    with changed(copy / name, data[:at] + piece + data[end:]):
        read_it_all(copy)
