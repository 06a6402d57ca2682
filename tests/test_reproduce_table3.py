"""scripts/reproduce_table3.py on glyphs: trains, leaves alone, resumes, compares."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, one_line_error
from inline import Inline

from fewshot.core import console
from fewshot.sweeps import executors

sys.path.insert(0, str(ROOT / "scripts"))
import reproduce_table3

COMMITTED = ROOT / "results" / "table3-cpu"
FEW = ["--dataset", "glyphs", "--epochs", "1", "--episodes-per-epoch", "6", "--val-episodes", "20",
       "--test-episodes", "50", "--threads", "1", "--device", "cpu"]  # fmt: skip


def reproduce(folder, *flags) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(executors, "Local", Inline)
        return console.run(reproduce_table3.main, [*flags, "--out", "runs"])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table3")
    assert reproduce(folder, "--cpu", "--cells", "proto-conv4", "--results", "results", *FEW) == 0
    return folder


def test_trains_the_cells_and_compares_them_pairwise(done):
    lines = [line.split(" | ") for line in (done / "results" / "table.md").read_text().splitlines()]
    rows = {(cells[0], cells[1]): cells[2:] for cells in lines if len(cells) == 5}
    assert rows["| ProtoNet, Conv-64F, none", "1-shot"][0] == "49.42"
    assert rows["| ProtoNet, Conv-64F, TargetDrop", "5-shot"][0] == "69.29"

    def episodes(method):
        return np.load(done / f"results/proto-conv4-{method}-1shot-seed0/episodes-glyphs-test-5w1s15q.npy")

    gain = episodes("targetdrop").astype(float) - episodes("none")
    expected = f"{100 * gain.mean():+.2f} ± {196 * gain.std(ddof=1) / 50**0.5:.2f}"
    assert rows["| ProtoNet, Conv-64F, TargetDrop", "1-shot"][2] == f"{expected} |"


def test_what_is_done_is_left_alone_and_what_was_cut_resumed(done):
    cut = Path("runs") / "cpu" / "proto-conv4-none-5shot-seed0"
    (done / cut / "result.json").unlink()
    logs = done / "runs" / "cpu" / "logs"
    before = {path: path.read_text() for path in logs.iterdir()}
    others = {path: path.stat().st_mtime_ns for path in done.glob("runs/cpu/*-seed0/*") if path.parent != done / cut}
    assert reproduce(done, "--cpu", "--cells", "proto-conv4-none", *FEW) == 0
    assert json.loads((done / cut / "result.json").read_text())["results"]
    said = {path.stem: path.read_text().removeprefix(text) for path, text in before.items() if path.exists()}
    assert said.pop(cut.name).count(f"{cut} goes on") == 1 and not any(said.values())
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_the_committed_table_follows_from_the_committed_runs(tmp_path):
    """Runs of an older version, made one by one: the sweep finds them done."""
    shutil.copytree(COMMITTED, tmp_path / "runs" / "cpu")
    flags = ["--cpu", "--cells", "proto-conv4", "--threads", "1", "--dataset", "mini-imagenet", "--results", "results"]
    assert reproduce(tmp_path, *flags) == 0
    ours, theirs = ((folder / "table.md").read_text().splitlines() for folder in (tmp_path / "results", COMMITTED))
    assert ours[:2] == theirs[:2] and ours[3:] == theirs[3:], "but for the command"


def test_a_run_of_another_configuration_is_no_run_of_the_sweep(tmp_path, capsys):
    shutil.copytree(COMMITTED, tmp_path / "runs" / "cpu")
    flags = ["--cpu", "--cells", "proto-conv4", "--threads", "1", "--dataset", "mini-imagenet", "--lr", "0.2"]
    assert reproduce(tmp_path, *flags) == console.USER_ERROR
    assert "proto-conv4-none-1shot-seed0 began with --lr 0.1, not 0.2; give another --out" in one_line_error(capsys)


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--cells", "proto-conf"], "no cell begins so; there are proto-conv4-none-1shot"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
        (["--recipe", "glyphs"], "--recipe glyphs: it differs from run to run here; give --cells"),
        (["--test-shots", "1"], "--test-shots: the table needs 1 and 5"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_a_users_mistake_is_one_line(flags, expected, tmp_path, capsys):
    assert reproduce(tmp_path, *flags) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []
