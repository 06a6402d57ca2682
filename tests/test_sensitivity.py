"""scripts/sensitivity.py on glyphs: a sweep that is interrupted, goes on, is repeated, and says what it found."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import ROOT, SMALL, one_line_error
from inline import Inline

from fewshot.core import console
from fewshot.sweeps import executors

sys.path.insert(0, str(ROOT / "scripts"))
import sensitivity

# 40 steps of 10 images; the metrics are written from the tenth on.
FEW = [*SMALL, "--epochs", "1", "--episodes-per-epoch", "40", "--episodes-per-batch", "1", "--queries", "1"]
# At site 4 the map is 2x2: of the block sizes 1, 3, 5, 7, three are declined.
SWEEP = [*FEW, "--reg", "targetdrop@4", "--sweep", "drop_prob", "0.15", "--sweep", "sites", "4",
         "--sweep", "block_size", "--out", "runs", "--jobs", "1"]  # fmt: skip
REPORT = ("table.md", "points.csv", "plot.svg")


def sweep(*flags: str, of: list[str] = SWEEP) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "Local", Inline)
        return console.run(sensitivity.main, [*of, *flags])


def episodes(folder: Path, run: str, shots: int) -> np.ndarray:
    return np.load(folder / "runs" / run / f"episodes-glyphs-test-5w{shots}s15q.npy").astype(float)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, int, str]:
    """A sweep that Ctrl-C stops while its second run trains: its folder, exit status and last words."""
    folder = tmp_path_factory.mktemp("sensitivity")
    script = [sys.executable, ROOT / "scripts" / "sensitivity.py", *SWEEP]
    with subprocess.Popen(script, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (folder / "runs" / "targetdrop@4-seed0" / "metrics.jsonl").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    return folder, process.returncode, words


@pytest.fixture(scope="module")
def done(interrupted) -> Path:
    """The same sweep, called again."""
    folder, *_ = interrupted
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert sweep() == 0
    return folder


def test_an_interrupted_sweep_saves_its_run_and_goes_on(interrupted, request):
    folder, status, words = interrupted
    assert (status, words) == (130, "interrupted: 1 of 3 runs are done; the same command goes on\n")
    cut = folder / "runs" / "targetdrop@4-seed0"
    assert (cut / "checkpoint.pt").is_file() and len((cut / "metrics.jsonl").read_text().splitlines()) < 40
    begun = json.loads((cut / "environment.json").read_text())["started"]
    first = (folder / "runs" / "none-seed0" / "result.json").stat().st_mtime_ns
    request.getfixturevalue("done")
    assert json.loads((cut / "environment.json").read_text())["started"] == begun
    assert (folder / "runs" / "none-seed0" / "result.json").stat().st_mtime_ns == first
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 41  # 40 steps, 1 validation


def test_the_table_compares_each_value_with_none(done):
    lines = [line.strip("| ").split(" | ") for line in (done / "runs" / "table.md").read_text().splitlines()]
    rows = {(cells[0], cells[1]): cells[2:] for cells in lines if len(cells) > 2}
    none, ours = episodes(done, "none-seed0", 1), episodes(done, "targetdrop@4-block_size=1-seed0", 1)
    gain, steps = ours - none, []
    for line in (done / "runs" / "targetdrop@4-block_size=1-seed0" / "metrics.jsonl").read_text().splitlines():
        steps += [json.loads(line)["dropped"]] if "dropped" in line else []
    accuracy, difference, _, _, dropped = rows["block_size", "1"]
    assert accuracy == f"{100 * ours.mean():.2f} ± {196 * ours.std(ddof=1) / 50**0.5:.2f}"
    assert difference == f"{100 * gain.mean():+.2f} ± {196 * gain.std(ddof=1) / 50**0.5:.2f}"
    assert len(steps) == 40 and dropped == f"{100 * np.mean(steps):.2f}"
    assert rows["drop_prob", "**0.15**"] == rows["sites", "**4**"], "one configuration, one run"
    assert rows["block_size", "5"][0] == "declined"


def test_points_and_plot_hold_the_declined_too(done):
    with open(done / "runs" / "points.csv", newline="") as file:
        points = list(csv.DictReader(file))
    assert len(points) == 2 * (1 + 1 + 1 + 4)
    base = next(point for point in points if point["option"] == "sites" and point["shots"] == "5")
    assert base["accuracy"] == f"{100 * episodes(done, 'targetdrop@4-seed0', 5).mean():.2f}"
    assert [point["value"] for point in points if point["declined"] and point["shots"] == "1"] == ["3", "5", "7"]
    svg = (done / "runs" / "plot.svg").read_text()
    ElementTree.fromstring(svg)
    assert svg.count("<!-- declined -->") == 2 * 3 and "<!-- drop_prob -->" in svg


def test_the_same_command_trains_nothing_twice(done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*-seed0/*")}
    reports = [(done / "runs" / name).read_bytes() for name in REPORT]
    assert sweep("--results", "again") == 0
    assert capsys.readouterr().out.startswith("Declined: block_size 3 ")
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*-seed0/*")} == before
    again = [(done / "again" / name).read_bytes() for name in REPORT]
    assert again[1:] == reports[1:]
    assert again[0] == reports[0].replace(b"--jobs 1\n", b"--jobs 1 --results again\n")


def test_seeds_are_averaged_and_told_apart(done, monkeypatch):
    monkeypatch.chdir(done)
    point = [*FEW, "--reg", "targetdrop@4", "--sweep", "drop_prob", "0.15", "--out", "runs"]
    assert sweep("--results", "two", "--seeds", "2", of=point) == 0
    none, ours = (
        np.stack([episodes(done, f"{reg}-seed{seed}", 1).mean() for seed in (0, 1)]) for reg in ("none", "targetdrop@4")
    )
    line = (done / "two" / "table.md").read_text().split("| drop_prob | **0.15** | ")[1].splitlines()[0]
    assert line.startswith(f"{100 * ours.mean():.2f} ± ") and f"(s {100 * ours.std(ddof=1):.2f})" in line
    assert "({:+.2f}, {:+.2f})".format(*100 * (ours - none)) in line


def test_another_configuration_needs_another_folder(done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    assert sweep("--epochs", "2") == 2
    assert "runs has none-seed0 with --epochs 1, not 2; give another --out" in one_line_error(capsys)


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--sweep", "drop_probb", "0.1"], "unknown option of regularizer 'targetdrop': 'drop_probb'. Did you mean"),
        (["--sweep", "block_size", "3", "9"], "block_size=9 is larger than the 8x8 map at site 2"),
        (["--sweep", "sites", "7"], "there is no site 7"),
        (["--sweep", "sites", "3:0.2"], "--sweep sites 3:0.2: write block numbers"),
        (["--sweep", "sites", "3:ties=all"], "--sweep sites 3:ties=all: write block numbers"),
        (["--sweep", "reduction"], "--sweep reduction: give its values"),
        (["--reg", "none"], "--reg none: give one regularizer"),
        (["--seeds", "0"], "--seeds 0: give at least 1"),
        (["--seed", "3"], "--seed 3: it differs from run to run here; give --seeds N"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_a_users_mistake_is_one_line(flags, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert console.run(sensitivity.main, flags) == 2
    assert expected in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []
