"""What the reports of sweeps take from each run: its own test, and no other evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

import boards
import classes
import numpy as np
import pytest

from fewshot import evaluate
from fewshot.config import TrainConfig
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.runs import Run
from fewshot.sweeps.runs import accuracies, check_tasks


def test_a_later_evaluation_on_more_tasks_changes_nothing(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    before = accuracies([Run.open(folder)], 1)
    assert console.run(evaluate.main, [str(folder), "--shots", "1", "--episodes", "60", "--threads", "1"]) == 0
    assert [row["episodes"] for row in Run.open(folder).own() if row["shots"] == 1] == [60]
    after = accuracies([Run.open(folder)], 1)
    assert before.shape == (1, 50) and np.array_equal(before, after)


@pytest.mark.parametrize("other", [{"episodes_seed": 7}, {"former_fingerprint": "f" * 64}])
def test_nor_do_as_many_tasks_of_another_seed_or_on_other_pixels(small_run, tmp_path, other):
    folder = shutil.copytree(small_run, tmp_path / "run")

    def put_first(result: dict) -> None:
        result["results"] = [row | other | {"accuracy": 0.5} for row in result["results"]] + result["results"]

    boards.edit(folder / "result.json", put_first)
    ours = [row["accuracy"] for row in Run.open(small_run).own()]
    assert [row["accuracy"] for row in Run.open(folder).tested()] == ours


def test_a_users_own_data_set_is_known_by_its_pixels(small_run, tmp_path):
    """The configuration names a specification, and rows the data set that it describes."""
    ours = {"dataset": "my_sets.GLYPHS"}
    same = boards.variant(small_run, tmp_path / "same", config=ours)
    assert len(Run.open(same).own()) == len(Run.open(small_run).own()) == 2
    elsewhere = {"dataset": "toys", "former_fingerprint": "f" * 64}
    other = boards.variant(small_run, tmp_path / "other", config=ours, row=elsewhere)
    assert Run.open(other).own() == []


def test_a_run_without_the_test_is_named(small_run):
    with pytest.raises(UserError, match="small has no 3-shot test of 50 tasks: evaluate it so"):
        accuracies([Run.open(small_run)], 3)


def test_what_is_tested_on_images_is_found_before_any_run(tmp_path):
    def config(dataset: str) -> TrainConfig:
        return TrainConfig(dataset=dataset, data_root=str(root), regime="supervised")

    root: Path = classes.make(tmp_path / "data")
    check_tasks([config("glyphs")])
    with pytest.raises(UserError, match="--regime supervised: on letters it is tested on images"):
        check_tasks([config("glyphs"), config("letters")])
