"""The files behind few-shot rows: what they must be like, what a row may say of them, which are ever deleted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fewshot.config import TrainConfig
from fewshot.core import sealed
from fewshot.core.errors import UserError
from fewshot.evaluation import record_files
from fewshot.evaluation.records import Outcomes, Record, keep, read, read_accuracies
from fewshot.runs import Run

DRAW = np.random.default_rng(0)
VALUES = DRAW.random(40).astype(np.float32)
CLASSES = DRAW.random((40, 12)).argsort(1)[:, :5]
APART, THEIRS = VALUES[:8], CLASSES[:8]


@pytest.fixture
def run(tmp_path):
    return Run.create(TrainConfig(), str(tmp_path / "run"), {"fingerprint": "f" * 64})


def kept(run: Run, values: np.ndarray = VALUES, classes: np.ndarray = CLASSES) -> dict[str, Any]:
    """A row, whose record lies in the run folder."""
    record = Record(Outcomes(values, classes), Outcomes(APART, THEIRS))
    return {"ways": 5, "episodes": len(values)} | keep(run, "birds-test-5w1s15q", record)


def rewritten(run: Run, row: dict[str, Any], kind: str, data: bytes) -> dict[str, Any]:
    """The row with other bytes in its file, and with their digest: what it says is believed."""
    (run.folder / row[f"{kind}_file"]).write_bytes(data)
    return row | {f"{kind}_sha256": sealed.sha256(data)}


def test_only_records_are_deleted_whatever_a_row_that_is_gone_names(run):
    """A row is only what somebody says: the file that it calls its record may be any file."""
    row, mine = kept(run), ("best.safetensors", "notes.npy", "episodes.txt")
    outside = run.folder.parent / "images-outside.npz"
    for path in (outside, *(run.folder / name for name in mine)):
        path.write_bytes(b"mine")
    before = set(os.listdir(run.folder))
    named = (*mine, "config.json", "../images-outside.npz", "tasks-gone.npz")
    record_files.forget(run, [row, *({"tasks_file": name} for name in named)])
    assert set(os.listdir(run.folder)) == before - {row["episodes_file"], row["tasks_file"]} and outside.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": CLASSES[:-1]}, "is not what result.json says"),  # a task fewer
        ({"classes": CLASSES[:, :4]}, "is not what result.json says"),  # tasks of four classes
        ({"classes": CLASSES / 2}, "is not what result.json says"),
        ({"disjoint": APART[:, None]}, "is not what result.json says"),
        ({"disjoint": APART > 0.5}, "is not what result.json says"),
        ({"disjoint": APART + 1}, "holds accuracies outside 0 to 1"),
        ({"disjoint": -APART}, "holds accuracies outside 0 to 1"),
        ({"disjoint_classes": THEIRS[:-1]}, "is not what result.json says"),
        ({"disjoint_classes": THEIRS[:, :4]}, "is not what result.json says"),
        ({"classes": np.asfortranarray(CLASSES)}, "is damaged"),  # column by column: read in the wrong order
        ({"more": THEIRS}, "is damaged"),
    ],
)
def test_a_file_of_tasks_of_another_form_is_refused(run, changed, said):
    row = kept(run)
    whole = read(run, row)
    assert whole.disjoint is not None
    assert (whole.episodes.classes == CLASSES).all() and (whole.disjoint.classes == THEIRS).all()
    for found, given in ((whole.episodes, VALUES), (whole.disjoint, APART)):
        assert found.accuracies.dtype == np.float64 and (found.accuracies == given).all()
    arrays = {"classes": CLASSES, "disjoint": APART, "disjoint_classes": THEIRS} | changed
    with pytest.raises(UserError, match=said):
        read(run, rewritten(run, row, "tasks", record_files.npz(**arrays)))


def test_class_numbers_above_65535_stay_what_they_are(run):
    assert (read(run, kept(run, classes=CLASSES + 65_530)).episodes.classes == CLASSES + 65_530).all()


@pytest.mark.parametrize("name", ["accuracy", "std", "ci95"])
def test_a_row_differs_from_its_record_by_rounding_at_most(run, name):
    row, values = kept(run), VALUES.astype(float)
    std = values.std(ddof=1)
    row |= {"accuracy": values.mean(), "std": std, "ci95": 1.96 * std / 40**0.5}
    assert (read_accuracies(run.folder, row | {name: row[name] + 5e-7}) == values).all()
    for by in (-3e-6, 3e-6):
        with pytest.raises(UserError, match=f"says {name} .*, and episodes-birds-test-5w1s15q.npy gives"):
            read_accuracies(run.folder, row | {name: row[name] + by})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(VALUES < 0.1, -VALUES, VALUES), "holds accuracies outside 0 to 1"),
        (VALUES + 1, "holds accuracies outside 0 to 1"),
        (VALUES[:1], "is not what result.json says"),  # one task has no interval
        (VALUES[:, None], "is not what result.json says"),
        ((VALUES > 0.5).astype(np.int64), "is not what result.json says"),
    ],
)
def test_what_are_no_accuracies_is_refused(run, values, said):
    row = rewritten(run, kept(run), "episodes", record_files.npy(values)) | {"episodes": len(values)}
    with pytest.raises(UserError, match=said):
        read_accuracies(run.folder, row)


def test_a_record_takes_no_other_files_place_not_even_of_a_damaged_one(run):
    rows = [kept(run), kept(run, VALUES[::-1])]
    damaged = run.folder / rows[1]["episodes_file"]
    damaged.write_bytes(b"damaged")
    rows.append(kept(run, VALUES[::-1]))
    assert len({row["episodes_file"] for row in rows}) == 3 and damaged.read_bytes() == b"damaged"
    assert (read_accuracies(run.folder, rows[0]) == VALUES).all()
    assert (read_accuracies(run.folder, rows[2]) == VALUES[::-1]).all()
    assert kept(run, VALUES[::-1]) == rows[2], "the same again: the same file"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b.npy", "a\\b.npy", "a\x1bb.npy", "é" * 127 + ".npy"])
def test_what_is_no_name_of_a_file_is_refused(run, name):
    """The last has 131 letters, and more bytes than a file system takes."""
    with pytest.raises(UserError, match="result.json is damaged: episodes_file .* is no file's name"):
        read_accuracies(run.folder, kept(run) | {"episodes_file": name})
