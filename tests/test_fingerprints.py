"""Fingerprints once covered the data set's name: what was made then still counts as made with the same pixels."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from boards import edit, variant
from commands import ROOT, SMALL

from fewshot import compare, evaluate, leaderboard, train
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.episodes import Protocol, frozen
from fewshot.runs import Run

GLYPHS = open_dataset("glyphs")


def aged(folder):
    """Change the run folder to what was written then; returns it."""

    def age(facts: dict) -> None:
        facts["fingerprint"] = facts.pop("former_fingerprint")

    edit(folder / "config.json", lambda config: age(config["resolved"]))
    if (folder / "result.json").exists():
        edit(folder / "result.json", lambda result: [age(row) for row in result["results"]])
    return folder


def test_rows_of_both_times_are_one_row_of_the_leaderboard(small_run, tmp_path):
    runs = tmp_path / "runs"
    aged(variant(small_run, runs / "then", seed=0))
    variant(small_run, runs / "now", seed=1)
    variant(small_run, runs / "better", seed=1, reg="dropblock", gain=0.05)
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(tmp_path / "board.csv")]) == 0
    with open(tmp_path / "board.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["shots"] == "1"]
    assert [(row["rank"], row["run"], row["tasks"]) for row in rows] == [
        ("1", "better", "common"), ("2", "{then,now}", "common"),
    ]  # fmt: skip
    with open(ROOT / "results" / "leaderboard.csv", newline="") as file:
        committed = {row["fingerprint"] for row in csv.DictReader(file) if row["dataset"] == "glyphs"}
    assert {row["fingerprint"] for row in rows} == committed == {GLYPHS.former_fingerprint}


def test_runs_of_both_times_are_compared(small_run, tmp_path, capsys):
    then, now = aged(variant(small_run, tmp_path / "then")), variant(small_run, tmp_path / "now", reg="none", gain=0.1)
    assert console.run(compare.main, [str(then), str(now)]) == 0
    assert "is better than" in capsys.readouterr().out


def test_the_same_evaluation_replaces_the_row_of_then(small_run, tmp_path, capsys):
    folder = aged(shutil.copytree(small_run, tmp_path / "run"))
    before = json.loads((folder / "result.json").read_text())["results"]
    assert console.run(evaluate.main, [str(folder), "--episodes", "50", "--threads", "1", "--precision", "fp32"]) == 0
    after = json.loads((folder / "result.json").read_text())["results"]
    assert [row["accuracy"] for row in after] == pytest.approx([row["accuracy"] for row in before])
    assert len(after) == len(before) and after[0] | GLYPHS.fingerprints == after[0]
    assert "not at hand" not in capsys.readouterr().out, "the run's own images are known by their former fingerprint"


def test_a_run_of_then_is_gone_on_with(small_run, tmp_path, capsys):
    folder = aged(shutil.copytree(small_run, tmp_path / "run"))
    for name in ("result.json", "checkpoint.pt"):  # the latter names the configuration of now
        (folder / name).unlink()
    assert console.run(train.main, [*SMALL, "--reg", "targetdrop", "--out", str(folder), "--resume"]) == 0
    assert len(Run.open(folder).rows) == 2, capsys.readouterr()


@pytest.mark.parametrize("known", [GLYPHS.fingerprint, GLYPHS.former_fingerprint])
def test_a_task_list_of_either_time_is_of_these_pixels(known, tmp_path):
    values = json.loads((frozen.LISTS / "glyphs-test-5w1s15q.json").read_text())
    (tmp_path / "list.json").write_text(json.dumps(values | {"fingerprint": known}))
    assert frozen.pixel_warning(GLYPHS, [frozen.read(str(tmp_path / "list.json")).tasks(GLYPHS, 4)]) is None
    assert frozen.standard_tasks(GLYPHS, "test", Protocol(5, 1, 15), 4).frozen
