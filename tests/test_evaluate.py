"""python -m fewshot.evaluate: the same rows as training's own test, other protocols, wrong input."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from commands import one_line_error

from fewshot import evaluate
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.episodes import Protocol
from fewshot.episodes.frozen import LISTS, freeze
from fewshot.runs import Run


@pytest.fixture
def run_copy(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "run")


def run(*args) -> int:
    return console.run(evaluate.main, ["--precision", "fp32", *map(str, args)])


def forget(folder, name: str, key: str) -> None:
    values = json.loads((folder / name).read_text())
    del values[key]
    (folder / name).write_text(json.dumps(values))


def rows(folder) -> dict:
    return {(r["ways"], r["shots"]): r for r in json.loads((folder / "result.json").read_text())["results"]}


def test_repeats_the_tests_of_training(run_copy, capsys):
    before = rows(run_copy)
    assert run(run_copy, "--shots", 1, 5, "--episodes", 50, "--threads", 1) == 0
    assert rows(run_copy) == before
    assert "5-way 5-shot" in capsys.readouterr().out


def test_adds_another_protocol_and_keeps_the_others(run_copy):
    before = rows(run_copy)
    assert run(run_copy, "--ways", 10, "--shots", 2, "--queries", 5, "--episodes", 20) == 0
    after = rows(run_copy)
    assert after[10, 2]["episodes"] == 20 and 0 < after[10, 2]["accuracy"] < 1
    assert {key: after[key] for key in before} == before
    assert (run_copy / "episodes-glyphs-test-10w2s5q.npy").exists()


def test_more_episodes_begin_with_the_same_ones(run_copy):
    import numpy as np

    few = np.load(run_copy / "episodes-glyphs-test-5w1s15q.npy")
    assert run(run_copy, "--shots", 1, "--episodes", 80, "--threads", 1) == 0
    assert (np.load(run_copy / "episodes-glyphs-test-5w1s15q.npy")[:50] == few).all()


def test_a_frozen_list_stands_for_its_protocol(run_copy, tmp_path):
    mine = freeze(open_dataset("glyphs"), "val", Protocol(4, 2, 3), episodes=30, seed=7)
    (tmp_path / "mine.json").write_text(json.dumps(dataclasses.asdict(mine)))
    assert run(run_copy, "--tasks", tmp_path / "mine.json", "--threads", 1) == 0
    row = rows(run_copy)[4, 2]
    assert (row["split"], row["episodes"], row["episodes_seed"]) == ("val", 30, 7)
    assert (row["task_list"], row["episodes_digest"]) == ("glyphs-val-4w2s3q-seed7", mine.digest)
    assert rows(run_copy)[5, 5]["task_list"] == "glyphs-test-5w5s15q"


def test_one_run_by_two_names_is_one(run_copy, tmp_path):
    assert run(run_copy, f"{run_copy}/", "--shots", 1, "--episodes", 20, "--threads", 1) == 0


def test_a_foreign_result_is_found_before_the_work(run_copy, capsys):
    (run_copy / "result.json").write_text("{}")
    before = (run_copy / "episodes-glyphs-test-5w1s15q.npy").read_bytes()
    assert run(run_copy, "--episodes", 20) == 2
    assert "is not a result of ours" in one_line_error(capsys)
    assert (run_copy / "episodes-glyphs-test-5w1s15q.npy").read_bytes() == before


def test_a_list_that_does_not_fit_changes_nothing(run_copy, tmp_path, capsys):
    before = (run_copy / "result.json").read_bytes()
    wrong = {**json.loads((LISTS / "glyphs-test-5w1s15q.json").read_text()), "membership": "0" * 64}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    (tmp_path / "one.json").write_text(json.dumps(wrong | {"episodes": 1}))
    for lists, expected in (
        (["mini-imagenet-test-5w1s15q"], "is for data set mini-imagenet, not glyphs"),
        ([tmp_path / "wrong.json"], "classes or image counts"), (["glyphs-test"], "no task list 'glyphs-test'"),
        (["glyphs-val-5w1s15q", "glyphs-test-5w1s15q"], "different splits"),
        (["glyphs-test-5w1s15q", LISTS / "glyphs-test-5w1s15q.json"], "two lists are glyphs-test-5w1s15q"),
        ([tmp_path / "one.json"], "1 episodes; an interval needs at least 2"),
    ):  # fmt: skip
        assert run(run_copy, "--tasks", *lists) == 2
        assert expected in one_line_error(capsys)
    assert run(run_copy, "--tasks", "glyphs-test-5w1s15q", "--shots", 1) == 2
    assert "--tasks says what --shots says" in one_line_error(capsys)
    assert (run_copy / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    "spoil, flags, expected",
    [
        (lambda run: (run / "best.safetensors").unlink(), [], "has no weights (best.safetensors)"),
        (lambda run: (run / "best.safetensors").write_bytes(b"junk"), [], "best.safetensors is damaged"),
        (lambda run: (run / "config.json").write_text("{"), [], "config.json is damaged"),
        (lambda run: (run / "config.json").unlink(), [], "is not a run folder"),
        (None, ["--shots", "0"], "--shots 0: give at least 1"),
        (None, ["--shots", "30"], "ask for fewer shots or queries"),
        (None, ["--threads", "-1"], "--threads -1: give at least 0"),
        (lambda run: (run / "config.json").write_text("[]"), [], "config.json is damaged"),
        (lambda run: forget(run, "config.json", "resolved"), [], "config.json is damaged: it has no 'resolved'"),
        (lambda run: forget(run, "environment.json", "train_seconds"), [], "has not finished training"),
        (None, ["--episodes", "1"], "an interval needs at least 2"),
        (None, ["--dataset", "cub"], "is not prepared under"),
    ],
)
def test_a_users_mistake_is_one_line_and_changes_nothing(run_copy, capsys, spoil, flags, expected):
    if spoil:
        spoil(run_copy)
    before = (run_copy / "result.json").read_bytes()
    assert run(run_copy, *flags) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert (run_copy / "result.json").read_bytes() == before


def test_a_run_that_another_process_holds_is_left_alone(run_copy, capsys):
    with Run.open(run_copy).lock():
        assert run(run_copy) == console.USER_ERROR
    assert "another process is at work" in one_line_error(capsys)


def test_weights_of_another_network_are_refused(run_copy, capsys):
    config = json.loads((run_copy / "config.json").read_text())
    config["head"] = "proto:variant=snell"
    (run_copy / "config.json").write_text(json.dumps(config))
    assert run(run_copy) == console.USER_ERROR
    assert "holds weights of another network" in one_line_error(capsys)
