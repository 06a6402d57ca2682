"""python -m fewshot.evaluate: the same rows as training's own test, other protocols, wrong input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
from boards import edit, reseal, variant
from commands import one_line_error

from fewshot import compare, evaluate, leaderboard
from fewshot.core import compute, console
from fewshot.data import Split, dataset_json, open_dataset, store
from fewshot.episodes import Protocol, frozen
from fewshot.episodes.frozen import LISTS, freeze
from fewshot.evaluation.score import score_run
from fewshot.model import load_run
from fewshot.reports.boards.gathering import gather
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
    reseal(folder)


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


def test_more_episodes_begin_with_the_same_ones_and_replace_nothing(run_copy):
    before = (run_copy / "episodes-glyphs-test-5w1s15q.npy").read_bytes()
    result = json.loads((run_copy / "result.json").read_text())["results"]
    assert run(run_copy, "--shots", 1, "--episodes", 80, "--threads", 1) == 0
    assert run(run_copy, "--shots", 1, "--episodes", 20, "--threads", 1) == 0
    after = json.loads((run_copy / "result.json").read_text())["results"]
    assert after[:2] == result and [row["episodes"] for row in after] == [50, 50, 80, 20]
    assert (run_copy / "episodes-glyphs-test-5w1s15q.npy").read_bytes() == before
    one, _, more, fewer = (np.load(run_copy / row["episodes_file"]) for row in after)
    assert (more[:50] == one).all() and (fewer == one[:20]).all()
    assert [row["episodes"] for row in Run.open(run_copy).longest] == [80, 50]

    files = {path.name for path in run_copy.iterdir()}
    assert run(run_copy, "--shots", 1, "--episodes", 20, "--threads", 1) == 0
    assert {path.name for path in run_copy.iterdir()} == files, "the same tasks again: the same files"
    assert run(run_copy, "--shots", 1, "--episodes", 20, "--threads", 1, "--replace") == 0
    last = json.loads((run_copy / "result.json").read_text())["results"]
    assert [(row["shots"], row["episodes"]) for row in last] == [(5, 50), (1, 20)]
    kept = {row[key] for row in last for key in ("episodes_file", "tasks_file")}
    assert {path.name for path in run_copy.iterdir() if path.suffix in (".npy", ".npz")} == kept


def test_another_copy_of_the_images_replaces_nothing_either(run_copy, tmp_path):
    """The same name, classes and counts, but other pixels: the tasks are the same, the figures are not."""
    result = json.loads((run_copy / "result.json").read_text())["results"]
    glyphs = open_dataset("glyphs")
    darker = {name: Split(name, its.images // 2, its.classes, its.counts) for name, its in glyphs.splits.items()}
    other = dataclasses.replace(glyphs, splits=darker, fingerprint="e" * 64, former_fingerprint="")
    folder = Run.open(run_copy)
    where = compute.choose("cpu", "fp32")
    tasks = frozen.standard_tasks(other, "test", Protocol(5, 1, 15), 50)
    (row,) = score_run(folder, load_run(folder, where), other, [tasks], where)
    assert folder.rows == [*result, row] and row["episodes_digest"] == result[0]["episodes_digest"]
    assert row["episodes_file"] != result[0]["episodes_file"]


CLAIMS = {
    "accuracy": (0.99, "says accuracy 0.99, and episodes-glyphs-test-5w1s15q.npy gives"),
    "std": (0.001, "says std 0.001, and"),
    "ci95": (0.0001, "says ci95 0.0001, and"),
    "ci95 ": (-1, "says ci95 -1, which cannot be"),
    "ci95  ": (float("nan"), "says ci95 nan, which cannot be"),
    "accuracy ": (1.5, "says accuracy 1.5, which cannot be"),
    "ci_method": ("exact", "says ci_method 'exact', which cannot be"),
    "query_alpha": (0.0, "says query_alpha 0.0, which cannot be"),  # it would be listed among the balanced rows
    "episodes": (5000, "is not what result.json says"),
    "episodes_file": ("../b/episodes-glyphs-test-5w1s15q.npy", "is no file's name"),
    "episodes_file ": ("1" * 5000, "is no file's name"),
    "episodes_file  ": ("\ud800.npy", "is no file's name"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_the_record_does_not_prove_is_left_out_and_named(small_run, tmp_path, capsys, claim):
    runs = tmp_path / "runs"
    variant(small_run, runs / "b", reg="none", gain=-0.1)
    variant(small_run, runs / "c", reg="dropout", gain=-0.2)
    value, expected = CLAIMS[claim]
    variant(small_run, runs / "a")
    edit(runs / "a" / "result.json", lambda result: result["results"][0].update({claim.strip(): value}))
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(tmp_path / "board.csv")]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    if claim != "ci95  ":  # whose warning is that of a training that diverged
        assert warning.startswith("warning: a is left out: ") and expected in warning
    assert "a" not in {row.split(",")[18] for row in (tmp_path / "board.csv").read_text().splitlines()}
    assert console.run(compare.main, [str(runs / name) for name in "abc"]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "left out" in warning and expected in warning


def test_of_several_results_the_reports_take_the_longest_that_all_have(small_run, tmp_path, capsys):
    runs = tmp_path / "runs"
    folders = [shutil.copytree(small_run, runs / "a"), variant(small_run, runs / "b", config={"lr": 0.05}, noise=0.01)]
    for folder, more in zip(folders, ([20, 80], [20]), strict=True):
        for episodes in more:
            assert run(folder, "--shots", 1, "--episodes", episodes, "--threads", 1) == 0
    capsys.readouterr()
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(tmp_path / "board.csv")]) == 0
    board = [line.split(",") for line in (tmp_path / "board.csv").read_text().splitlines()[1:]]
    assert sorted((row[18], row[3], row[9]) for row in board) == [
        ("a", "1", "50"), ("a", "5", "50"), ("b", "1", "50"), ("b", "5", "50"),
    ]  # fmt: skip
    capsys.readouterr()
    assert console.run(compare.main, list(map(str, folders))) == 0
    assert capsys.readouterr().out.count(" 15 queries a class, 50 episodes") == 2


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
    assert "result.json is damaged: it lacks its sha256" in one_line_error(capsys)
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
        (None, ["--threads", "-1"], "--threads -1: give 0 to 4096"),
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
    edit(run_copy / "config.json", lambda config: config.update(head="proto:variant=snell"))
    assert run(run_copy) == console.USER_ERROR
    assert "holds weights of another network" in one_line_error(capsys)


def test_tasks_of_the_training_images_say_that_they_were_seen(run_copy, capsys):
    """Compared with tasks of the validation classes, they show how much a network overfits; no leaderboard has them."""

    def board() -> bytes:
        file = run_copy.parent / "board.csv"
        assert console.run(leaderboard.main, ["--runs", str(run_copy.parent), "--csv", str(file)]) == 0
        return file.read_bytes()

    before, ranked = len(Run.open(run_copy).rows), board()
    for split in ("train", "val"):
        assert run(run_copy, "--shots", 1, "--queries", 10, "--episodes", 20, "--threads", 1, "--split", split) == 0
    on_train, on_val = Run.open(run_copy).rows[before:]
    images = open_dataset("glyphs")["train"]
    assert on_train["seen_in_training"] == {"classes": len(images.classes), "images": len(images.images)}
    assert (on_train["split"], on_val["split"]) == ("train", "val") and "seen_in_training" not in on_val
    assert f"trained on {len(images.classes)} classes and" in capsys.readouterr().out
    assert board() == ranked


@pytest.mark.parametrize(
    "classes, images, expected",
    [(0, 0, None), (3, 0, {"classes": 3, "images": 0}), (0, 2, {"classes": 0, "images": 30})],
)
def test_what_was_seen_in_training_is_said_and_marked(small_run, tmp_path, capsys, classes, images, expected):
    """Another data set: its test split may share classes (by name) or images (by pixels) with the training split."""
    train, test = (open_dataset("glyphs")[name] for name in ("train", "test"))
    names = [*train.classes[:classes], *(f"new {number}" for number in range(6 - classes))]
    taken = [train.images[20 * n : 20 * n + 15] for n in range(images)]
    pixels = np.concatenate([*taken, *(test.images[20 * n : 20 * n + 16] for n in range(6 - images))])
    counts = [15] * images + [16] * (6 - images)
    (tmp_path / "data" / "birds").mkdir(parents=True)
    entry = {"classes": names, "counts": counts, "shape": list(pixels.shape)}
    np.save(tmp_path / "data" / "birds" / "test.npy", pixels)
    entries = {"test": entry | {"sha256": store.pixel_digest(pixels)}}
    dataset_json.write(tmp_path / "data" / "birds", "birds", entries, "made", [], {}, ((0.5,) * 3, (0.25,) * 3))
    runs = tmp_path / "runs"
    folder = shutil.copytree(small_run, runs / "a")
    flags = ["--dataset", "birds", "--data-root", tmp_path / "data", "--shots", 1, "--queries", 10]
    assert run(folder, *flags, "--episodes", 20, "--threads", 1) == 0
    out = capsys.readouterr().out
    row = Run.open(folder).rows[-1]
    assert row["dataset"] == "birds" and row.get("seen_in_training") == expected
    assert ("was trained on" in out) == (expected is not None)
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(tmp_path / "board.csv")]) == 0
    board = (tmp_path / "board.csv").read_text()
    said = {3: "glyphs (3 classes of what is tested)", 0: "glyphs (30 images of what is tested)"}
    assert (said[classes] in board) == (expected is not None)

    edit(folder / "config.json", lambda config: config["resolved"].update(fingerprint="0" * 64))
    assert run(folder, *flags, "--episodes", 20, "--threads", 1) == 0
    assert "are not at hand" in capsys.readouterr().out


def test_a_head_of_the_users_own_leaves_its_digest_and_an_edited_one_stands_apart(run_copy, tmp_path, monkeypatch):
    (tmp_path / "my_head.py").write_text("from fewshot.heads.proto import Proto\n\n\nclass Mine(Proto):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number in range(2):
        assert run(run_copy, "--shots", 1, "--episodes", 20, "--head", "my_head.Mine", "--threads", 1) == 0
        scores, _ = gather(tmp_path)
        found += [score.shared["code"] for score in scores if score.shared["head"] == "my_head.Mine"]
        (tmp_path / "my_head.py").write_text(f"{(tmp_path / 'my_head.py').read_text()}\n# edit {number}\n")
        del sys.modules["my_head"]
    trained, solved = found[0].split("+")
    assert trained == Run.open(run_copy).code_digest and len(solved) == 8
    assert found[1].startswith(f"{trained}+") and found[1] != found[0]


def test_other_pixels_than_the_lists_are_warned_of(run_copy, tmp_path, monkeypatch, capsys):
    values = json.loads((frozen.LISTS / "glyphs-test-5w1s15q.json").read_text())
    (tmp_path / "glyphs-test-5w1s15q.json").write_text(json.dumps(values | {"fingerprint": "0" * 64}))
    monkeypatch.setattr(frozen, "LISTS", tmp_path)
    assert run(run_copy, "--shots", 2, 1, "--episodes", 20, "--threads", 1) == 0
    assert "Warning: the pixels of this glyphs are not the reference copy's" in capsys.readouterr().out
