"""train --seeds: runs that differ in the seed alone, and their mean; never a mean of runs that differ in more."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from boards import edit, variant
from commands import SMALL, one_line_error
from scipy import stats

from fewshot import evaluate, train
from fewshot.core import console
from fewshot.identity import pixels
from fewshot.reports.sweep import print_seeds
from fewshot.runs import Run

QUICK = [*SMALL, "--epochs", "0"]
MEAN = "95% CI: Student's t over the seeds"
DROP = """
import torch
from fewshot.regularizers import Regularizer


class Rows(Regularizer):
    def multiplier(self, x, guide=None):
        return (torch.rand(len(x), 1, x.shape[2], 1) >= 0.2).float()
"""


def call(*args) -> int:
    return console.run(train.main, list(map(str, args)))


def test_several_seeds_are_one_command(tmp_path, capsys):
    flags = [*SMALL, "--epochs", "0", "--out", str(tmp_path / "runs")]
    assert console.run(train.main, [*flags, "--seeds", "0", "1"]) == 0
    out = capsys.readouterr().out
    assert [Run.open(tmp_path / "runs" / f"seed{n}").config.seed for n in (0, 1)] == [0, 1]
    assert "2 seeds" in out
    runs = [str(tmp_path / "runs" / f"seed{n}") for n in (0, 1)]
    few = ["--shots", "1", "--episodes", "20", "--threads", "1"]
    assert console.run(evaluate.main, [*runs, *few, "--head", "matching"]) == 0
    assert console.run(train.main, [*flags, "--seeds", "0", "1", "--resume"]) == 0
    summed_up = capsys.readouterr().out.partition("2 seeds")[2]
    (own, other) = re.findall("5-way 1-shot(.*)", summed_up)
    assert own.split() in [line.split() for line in re.findall("5-way 1-shot(.*)", out)]
    assert other.startswith(", matching "), "what another head made of them is a line of its own"
    assert console.run(train.main, [*flags, "--seeds", "0", "0"]) == 2
    assert "--seeds: 0 comes twice" in one_line_error(capsys)
    assert console.run(train.main, [*flags, "--seeds", "0", "--seed", "1"]) == 2
    assert "leave one of the two out" in one_line_error(capsys)


def test_a_missing_seed_is_trained_as_those_that_are_there(tmp_path, capsys):
    few = ["--transform", "l2", "--test-episodes", "30"]
    assert call(*QUICK, *few, "--out", tmp_path, "--seeds", 0) == 0
    assert call("--out", tmp_path, "--seeds", 0, 1, "--resume") == 0
    first, second = (Run.open(tmp_path / f"seed{n}").config for n in (0, 1))
    assert (second.transform, second.test_episodes, second.seed) == ("l2", 30, 1)
    assert second.epochs == first.epochs == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'seed1'} holds no run: this begins one." in out
    assert MEAN in out
    assert call("--out", tmp_path, "--seeds", 0, 2, "--resume", "--transform", "center") == console.USER_ERROR
    assert "--transform center differs from l2" in one_line_error(capsys)
    assert not (tmp_path / "seed2").exists()


def test_runs_that_differ_in_more_than_the_seed_are_refused(tmp_path, capsys):
    for seed, reg in enumerate(("none", "dropout")):
        assert call(*QUICK, "--reg", reg, "--seed", seed, "--out", tmp_path / f"seed{seed}") == 0
    capsys.readouterr()
    assert call("--out", tmp_path, "--seeds", 0, 1, "--resume") == console.USER_ERROR
    line = one_line_error(capsys)
    assert f"{tmp_path / 'seed1'} began with --reg dropout, and {tmp_path / 'seed0'} with none" in line


def test_a_seed_that_is_there_is_named_before_the_others_are_trained(tmp_path, capsys):
    assert call(*QUICK, "--seed", 1, "--out", tmp_path / "seed1") == 0
    capsys.readouterr()
    assert call(*QUICK, "--seeds", 0, 1, "--out", tmp_path) == console.USER_ERROR
    assert f"{tmp_path / 'seed1'} exists; give --resume" in one_line_error(capsys)
    assert not (tmp_path / "seed0").exists()


def test_seeds_of_different_code_are_not_averaged(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "rows_drop.py"
    code.write_text(DROP)
    out = tmp_path / "runs"
    flags = [*QUICK, "--reg", "rows_drop.Rows", "--out", out]
    try:
        assert call(*flags, "--seeds", 0, 1) == 0
        assert MEAN in capsys.readouterr().out
        code.write_text(DROP.replace("0.2", "0.3"))
        assert call(*flags, "--seeds", 0, 1, 2, "--resume") == 0
        said = capsys.readouterr().out
    finally:
        sys.modules.pop("rows_drop", None)
    assert said.count("rows_drop.py has changed since") == 2, "of each run that is done already"
    assert f"{out / 'seed2'} differs from {out / 'seed0'} in the code that trained it" in said
    assert MEAN not in said


@pytest.mark.parametrize("when", ["fewshot.learning.loop.train", "fewshot.experiment._test"])
def test_what_goes_on_after_an_interrupt_is_said_for_all_seeds(when, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(when, interrupted)
        assert call(*QUICK, "--out", tmp_path, "--seeds", 0, 1) == console.INTERRUPTED
    said = capsys.readouterr().err
    one, every = f"go on with --out {tmp_path / 'seed0'} --resume", f"by --out {tmp_path} --seeds 0 1 --resume"
    assert said == f"interrupted; {one}; with all seeds {every}\n"
    assert call("--out", tmp_path, "--seeds", 0, 1, "--resume") == 0
    assert MEAN in capsys.readouterr().out


def test_an_interrupt_before_anything_is_begun_names_no_way_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot.experiment.prepare", interrupted)
    assert call(*QUICK, "--out", tmp_path, "--seeds", 0, 1) == console.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("fact", [{"precision": "bf16"}])
def test_seeds_trained_in_different_precision_are_not_averaged(fact, tmp_path, capsys):
    assert call(*QUICK, "--out", tmp_path, "--seeds", 0, 1) == 0
    edit(tmp_path / "seed1" / "environment.json", lambda facts: facts.update(fact))
    capsys.readouterr()
    assert call("--out", tmp_path, "--seeds", 0, 1, "--resume") == 0
    assert f"{tmp_path / 'seed1'} differs from {tmp_path / 'seed0'} in precision." in capsys.readouterr().out


def test_a_folder_of_runs_is_no_run_and_names_its_runs(tmp_path, capsys):
    for seed in range(5):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "config.json").write_text("{}")
    assert console.run(evaluate.main, [str(tmp_path)]) == console.USER_ERROR
    runs = ", ".join(str(tmp_path / f"seed{seed}") for seed in range(3))
    assert one_line_error(capsys).endswith(f"it has no config.json; runs in it: {runs} and 2 more")


def test_the_mean_is_of_all_seeds_or_there_is_none(small_run, tmp_path, capsys):
    folders = [variant(small_run, tmp_path / f"s{seed}", seed=seed, gain=-seed / 100) for seed in range(3)]
    edit(folders[2] / "result.json", lambda result: result["results"].pop(0))  # its test at 1-shot
    runs = [Run.open(folder) for folder in folders]
    print_seeds(console.terminal(), runs)
    said = capsys.readouterr().out
    assert "3 seeds" in said and "5-way 1-shot" not in said, "which one of them lacks"
    each = 100 * np.array([row["accuracy"] for run in runs for row in run.rows if row["shots"] == 5])
    half = stats.t.ppf(0.975, 2) * each.std(ddof=1) / 3**0.5
    assert f"{each.mean():.2f} ± {half:.2f}" in said and ", ".join(f"{one:.2f}" for one in each) in said


def test_there_is_no_mean_over_other_pixels(small_run, tmp_path, capsys):
    """The same tasks, on another copy of the images."""
    folders = [variant(small_run, tmp_path / f"s{seed}", seed=seed) for seed in range(2)]
    others = dict.fromkeys(("fingerprint", "former_fingerprint"), "f" * 64)
    edit(folders[1] / "result.json", lambda result: result["results"][0].update(others))
    runs = [Run.open(folder) for folder in folders]
    print_seeds(console.terminal(), runs)
    said = capsys.readouterr().out
    assert "5-way 1-shot" not in said and "5-way 5-shot" in said
    of_now = {"fingerprint": "e" * 64, "former_fingerprint": pixels(runs[0].rows[0])}  # of the same pixels
    edit(folders[1] / "result.json", lambda result: result["results"][0].update(of_now))
    print_seeds(console.terminal(), [Run.open(folder) for folder in folders])
    assert "5-way 1-shot" in capsys.readouterr().out


def test_a_missing_seed_finds_its_data_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*QUICK, "--out", "runs", "--seeds", 0) == 0
    assert call("--out", "runs", "--seeds", 0, 1, "--resume", "--data-root", "here") == 0
    assert Run.open("runs/seed1").config.data_root == str(tmp_path / "here")
