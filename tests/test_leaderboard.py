"""python -m fewshot.leaderboard: the contract's columns, RFC 4180, seeds, ranks, merging, wrong input."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from boards import edit, reseal, variant
from commands import NETWORK, ROOT, one_line_error
from scipy import stats

from fewshot import leaderboard
from fewshot.core import console
from fewshot.core.files import locked
from fewshot.evaluation.statistics import summarise
from fewshot.reports.boards import gathering
from fewshot.reports.boards.leaderboard import braced
from fewshot.runs import Run

CONTRACT = (
    "rank,dataset,ways,shots,backbone,head,regularizer,accuracy,ci95,episodes,seeds,train_seconds,device,parameters,"
    "recipe,commit,fingerprint,episodes_digest,run"
).split(",")


def run(*args) -> int:
    return console.run(leaderboard.main, [str(arg) for arg in args])


def board(*args, shots: str | None = "1") -> list[dict[str, str]]:
    """The rows that the command writes, for one number of shots unless `shots` is None."""
    path = args[args.index("--csv") + 1]
    assert run(*args) == 0
    return [row for row in read(path) if shots in (None, row["shots"])]


def read(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


def test_rows_are_ranked_within_their_task_and_parse_as_rfc_4180(small_run, tmp_path):
    runs = tmp_path / "runs"
    variant(small_run, runs / "a")
    name = 'dropblock:drop_prob=0.1,block_size=2 "mine"'
    variant(small_run, runs / "b", reg=name, gain=0.001)
    rows = board("--runs", runs, "--csv", tmp_path / "new" / "board.csv", shots=None)
    text = (tmp_path / "new" / "board.csv").read_bytes().decode()
    assert text.count("\r\n") == 5 and text.count("\n") == 5
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT
    assert [(row["shots"], row["rank"], row["run"]) for row in rows] == [
        ("1", "1", "b"), ("1", "2", "a"), ("5", "1", "b"), ("5", "2", "a"),
    ]  # fmt: skip
    assert rows[0]["regularizer"] == name
    original = json.loads((small_run / "result.json").read_text())["results"][0]
    assert rows[1]["accuracy"] == f"{100 * original['accuracy']:.2f}"
    assert all(row[key] for row in rows for key in row if key not in ("commit", "code")), "every column is filled"


def test_runs_that_differ_in_the_seed_alone_are_one_row_with_students_interval(small_run, tmp_path):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    gains = {2: 0.01, 10: 0.03, 9: -0.02}
    for seed, gain in gains.items():
        folder = variant(small_run, runs / f"s{seed}", seed=seed, gain=gain, config={"threads": seed})
        facts = {"device": f"D{seed // 5}", "train_seconds": seed}
        edit(folder / "environment.json", lambda value, facts=facts: value.update(facts))
    variant(small_run, runs / "other", config={"weight_decay": 0.1})
    rows = {row["run"]: row for row in board("--runs", runs, "--csv", file)}
    assert set(rows) == {"s{2,9,10}", "other"}
    row = rows["s{2,9,10}"]
    exact = json.loads((small_run / "result.json").read_text())["results"][0]["accuracy"]
    scores = exact + np.array(list(gains.values()))
    half = stats.t.interval(0.95, 2, scale=stats.sem(scores))[1]
    assert (row["accuracy"], row["ci95"]) == (f"{100 * scores.mean():.2f}", f"{100 * half:.2f}")
    assert (row["seeds"], row["seed"], row["train_seconds"], row["device"]) == ("3", "2 9 10", "7.0", "D0; D1; D2")
    assert "training anew" in row["ci_method"] and "training anew" not in rows["other"]["ci_method"]
    assert len(board("--runs", runs, "--csv", file, "--no-aggregate")) == 4


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["one"], "one"),
        (["t/a-seed0", "t/a-seed1"], "t/a-seed{0,1}"),
        (["seed10/x", "seed11/x"], "seed{10,11}/x"),
        (["a", "b"], "{a,b}"),
        (["run", "run-2"], "run{,-2}"),
    ],
)
def test_folders_of_a_row_are_written_as_the_shell_expands_them(names, expected):
    assert braced(names) == expected
    if len(names) > 1:
        assert subprocess.check_output(["bash", "-c", f"echo {expected}"], text=True).split() == names


def test_of_runs_with_the_same_seed_the_newest_counts_and_that_is_said(small_run, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "new", gain=0.1, started="2030-01-02T00:00:00+00:00")
    variant(small_run, runs / "old", started="2030-01-01T00:00:00+00:00")
    variant(small_run, runs / "seed1", seed=1)
    (row,) = board("--runs", runs, "--csv", file)
    assert (row["run"], row["seeds"]) == ("{new,seed1}", "2")
    said = "Left out, because a newer run has the same configuration and seed:"
    assert f"{said} {runs / 'old'}." in capsys.readouterr().out
    assert len(board("--runs", runs, "--csv", file, "--no-aggregate")) == 3


def ranked(rows) -> dict[str, str]:
    return {row["run"]: row["rank"] for row in rows}


def test_rows_share_a_rank_where_the_paired_test_cannot_separate_them(small_run, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "best", reg="dropout", gain=0.02)
    variant(small_run, runs / "near", reg="cutout", gain=0.0199, noise=0.05)
    variant(small_run, runs / "next", reg="none", gain=0.01)
    rows = board("--runs", runs, "--csv", file)
    half = float(rows[0]["ci95"])
    assert half > 2, "by the intervals alone, all would be equal"
    assert ranked(rows) == {"best": "1", "near": "1", "next": "2"}, "of the two above, one is known to be better"
    assert {row["rank_by"] for row in rows} == {"paired differences"}
    for path in (runs / "next").glob("*.npy"):
        path.unlink()
    capsys.readouterr()
    rows = board("--runs", runs, "--csv", file)
    assert "warning: the records of next are missing: their figures cannot be checked" in capsys.readouterr().out
    assert set(ranked(rows).values()) == {"1"} and {row["rank_by"] for row in rows} == {"ci95"}


def test_a_rank_over_seeds_claims_no_more_than_its_interval(small_run, tmp_path):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "best", reg="none", gain=0.02)
    variant(small_run, runs / "s0", seed=0, gain=0.09)
    variant(small_run, runs / "s1", seed=1, gain=-0.09)
    rows = board("--runs", runs, "--csv", file)
    assert ranked(rows) == {"best": "1", "s{0,1}": "1"}
    variant(small_run, runs / "t0", seed=0, reg="cutout", gain=-0.501)
    variant(small_run, runs / "t1", seed=1, reg="cutout", gain=-0.5)
    assert ranked(board("--runs", runs, "--csv", file))["t{0,1}"] == "2", "the seeds of the one above it scatter"


def test_a_row_of_which_nothing_is_known_changes_no_rank(small_run, tmp_path):
    """In groups with leaders, a leader whose seeds scatter drew rows that differ into one group."""
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "best", reg="cutout", gain=0.02)
    variant(small_run, runs / "next", reg="none")
    assert ranked(board("--runs", runs, "--csv", file)) == {"best": "1", "next": "2"}
    for seed, gain in enumerate((-0.1, 0.2)):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=gain)
    assert ranked(board("--runs", runs, "--csv", file)) == {"s{0,1}": "1", "best": "1", "next": "2"}


@pytest.mark.parametrize("append", [False, True], ids=["paired", "by intervals"])
def test_one_seed_strays_as_far_as_the_seeds_beside_it(small_run, tmp_path, append):
    """Ten seeds give their mean a small interval. A single run has none for training anew; theirs is not its own."""
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    for seed in range(10):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=0.02 * (-1) ** seed)
    std = 0.02 * (10 / 9) ** 0.5
    reach = stats.t.ppf(0.975, 9) * std * (11 / 10) ** 0.5
    variant(small_run, runs / "near", reg="none", gain=0.9 * reach)
    variant(small_run, runs / "far", reg="cutout", gain=1.1 * reach)
    variant(small_run, runs / "below", reg="dropout", gain=-0.9 * reach)
    found = ranked(board("--runs", runs, "--csv", file, *(["--append"] if append else [])))
    near = "1" if append else "2"  # of the two single runs above, one is better, by their episodes
    assert found == {"far": "1", "near": near, "s{0,1,2,3,4,5,6,7,8,9}": "2", "below": "3"}


def test_ranks_rise_and_a_row_that_scatters_may_stand_above_a_better_one(small_run, tmp_path):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "best", reg="cutout", gain=0.02)
    variant(small_run, runs / "second", reg="dropout", gain=0.01)
    for seed, gain in enumerate((-0.2, 0.2)):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=gain)
    rows = board("--runs", runs, "--csv", file)
    assert list(ranked(rows).items()) == [("best", "1"), ("s{0,1}", "1"), ("second", "2")]


def test_other_tasks_are_ranked_apart_and_say_so(small_run, tmp_path):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "a")
    variant(small_run, runs / "b", reg="none", gain=-0.1)
    variant(small_run, runs / "pixels", gain=0.2, row={"fingerprint": "f" * 64, "former_fingerprint": "e" * 64})
    variant(small_run, runs / "tasks", gain=0.3, reg="cutout", row={"episodes_digest": "e" * 64})
    variant(small_run, runs / "queries", gain=0.4, row={"episodes_digest": "d" * 64, "queries": 7})
    rows = board("--runs", runs, "--csv", file)
    assert ranked(rows[:2]) == {"a": "1", "b": "2"}, "the tasks that most rows share come first"
    assert {row["run"]: (row["rank"], row["tasks"]) for row in rows} == {
        "a": ("1", "common"), "b": ("2", "common"), "pixels": ("1", "other pixels"), "tasks": ("1", "other episodes"),
        "queries": ("1", "other queries"),
    }  # fmt: skip


def test_append_merges_seeds_and_boards_and_takes_a_run_once(small_run, tmp_path):
    file, whole = tmp_path / "board.csv", tmp_path / "whole.csv"
    variant(small_run, tmp_path / "one" / "s0", seed=0)
    variant(small_run, tmp_path / "two" / "s1", seed=1, gain=0.01)
    variant(small_run, tmp_path / "two" / "none", reg="none", gain=-0.2)
    assert len(board("--runs", tmp_path / "one", "--csv", file, "--append")) == 1
    rows = board("--runs", tmp_path / "two", "--csv", file, "--append")
    assert [(row["run"], row["rank"], row["seeds"]) for row in rows] == [("s{0,1}", "1", "2"), ("none", "2", "1")]
    before = file.read_bytes()
    for folder in ("two", "one"):
        board("--runs", tmp_path / folder, "--csv", file, "--append")
    assert file.read_bytes() == before
    for folder in ("one", "two"):
        shutil.copytree(tmp_path / folder, tmp_path / "all", dirs_exist_ok=True)
    board("--runs", tmp_path / "all", "--csv", whole, "--append")
    assert whole.read_bytes() == before, "the same, whatever came when"


def test_processes_that_append_at_once_lose_and_double_nothing(small_run, tmp_path):
    file = tmp_path / "board.csv"
    regs = ["none", "dropout", "cutout"]
    for reg in regs:
        variant(small_run, tmp_path / reg / reg, reg=reg)
        variant(small_run, tmp_path / reg / "shared")
    flags = [sys.executable, "-m", "fewshot.leaderboard", "--csv", file, "--append", "--runs"]
    with locked(tmp_path / ".board.csv.lock"):  # until all have begun, so that they meet
        processes = [subprocess.Popen([*flags, tmp_path / reg], stdout=subprocess.DEVNULL) for reg in regs * 2]
        time.sleep(2)
        assert not file.exists()
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    rows = read(file)
    for shots in ("1", "5"):
        assert sorted(row["regularizer"] for row in rows if row["shots"] == shots) == sorted([*regs, "targetdrop"])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["board.csv"], "no lock is left"


SPOILED = {
    "cut short": (lambda text: text[: len(text) // 2], "is damaged"),
    "a figure edited": (lambda text: re.sub(r"proto,targetdrop,\d+", "proto,targetdrop,99", text), "accuracy of row 1"),
    "a task edited": (lambda text: text.replace("1,glyphs,5,", "1,glyphs,?,", 1), "row 1 does not agree with its key"),
    "a seed edited": (lambda text: text.replace('""seed"":0', '""sead"":0'), "row 1 has an each_run that is not ours"),
    "a version edited": (lambda text: re.sub(r",2\r", ",7\r", text), "row 1 has csv_version 7"),
    "a setting edited": (lambda text: text.replace("inductive,", "deductive,"), "row 1 does not agree with its key"),
    "a field lost": (lambda text: text.replace(",common,", ",", 1), "row 1 has 38 fields"),
    "a time edited": (lambda text: text.replace('""started"":""2', '""started"":""x'), "an each_run that is not ours"),
    "another version": (lambda text: text.replace(",queries,", ",questions,", 1), "has other columns than"),
    "another's": (lambda text: "name,score\r\n", "is not a leaderboard of ours"),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_append_refuses_a_damaged_csv_and_leaves_it(small_run, tmp_path, capsys, spoil):
    file = tmp_path / "board.csv"
    board("--runs", small_run.parent, "--csv", file)
    change, expected = SPOILED[spoil]
    file.write_bytes(change(file.read_bytes().decode()).encode())
    before = file.read_bytes()
    capsys.readouterr()
    assert run("--runs", small_run.parent, "--csv", file, "--append") == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["csv", "markdown", "html"])
def test_a_file_that_is_not_ours_is_not_replaced(small_run, tmp_path, capsys, kind):
    files = {"csv": tmp_path / "b.csv", "markdown": tmp_path / "b.md", "html": tmp_path / "b.html"}
    flags = [flag for name, path in files.items() for flag in (f"--{name}", path)]
    assert run("--runs", small_run.parent, *flags) == run("--runs", small_run.parent, *flags) == 0
    for path in files.values():
        path.unlink()
    files[kind].write_text("my diary")
    capsys.readouterr()
    assert run("--runs", small_run.parent, *flags) == console.USER_ERROR
    assert f"is not a leaderboard of ours; move it away, or give another --{kind}" in one_line_error(capsys)
    assert os.listdir(tmp_path) == [files[kind].name] and files[kind].read_text() == "my diary"


def test_markdown_has_a_table_a_board_whatever_is_in_a_name(small_run, tmp_path):
    variant(small_run, tmp_path / "runs" / "a", reg="mine:say=a|b<c>*d*")
    variant(small_run, tmp_path / "runs" / "b", reg="none", noise=0.05)
    file = tmp_path / "board.md"
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv", "--markdown", file) == 0
    lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 8 and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert sum(r"mine:say=a\|b\<c\>\*d\*" in line for line in lines) == 2
    assert "of this network on this test set" in file.read_text() and "1.96 * std / sqrt(n)" in file.read_text()


def test_no_runs_are_one_line_and_overwrite_nothing(small_run, tmp_path, capsys):
    file = tmp_path / "board.csv"
    assert run("--runs", tmp_path / "nowhere", "--csv", file) == console.USER_ERROR
    assert "is not a folder" in one_line_error(capsys)
    (tmp_path / "empty").mkdir()
    assert run("--runs", tmp_path / "empty", "--csv", file) == console.USER_ERROR
    assert "no finished run below" in one_line_error(capsys)
    variant(small_run, tmp_path / "validated" / "a", row={"split": "val"})
    assert run("--runs", tmp_path / "validated", "--csv", file) == console.USER_ERROR
    assert "has a result on test images: evaluate one" in one_line_error(capsys)
    assert not file.exists()


def break_json(folder):
    (folder / "config.json").write_text("{")


def diverge(folder):
    edit(folder / "result.json", lambda value: value["results"][1].update(accuracy=float("nan")))


def cut_array(folder):
    array = next(folder.glob("*1s*.npy"))
    array.write_bytes(array.read_bytes()[:100])


def remove_column(folder):
    edit(folder / "result.json", lambda value: value["results"][0].pop("episodes_digest"))


def replace_result(folder):
    (folder / "result.json").write_text('{"results": {"accuracy": 1}}')
    reseal(folder)


DAMAGE = {
    break_json: "config.json is damaged: it is not JSON",
    diverge: "holds numbers that are not finite: the training diverged",
    cut_array: "5w1s15q.npy is damaged, or another run's: result.json names another sha256",
    remove_column: "result.json is not a result of ours (it lacks episodes_digest)",
    replace_result: "result.json is not a result of ours",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_run_is_left_out_and_named(small_run, tmp_path, capsys, damage):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    damage(variant(small_run, runs / "bad", reg="none"))
    assert run("--runs", runs, "--csv", file) == console.USER_ERROR
    error = one_line_error(capsys)
    assert "can be read: " in error and DAMAGE[damage] in error and not file.exists()
    variant(small_run, runs / "good")
    rows = board("--runs", runs, "--csv", file, shots=None)
    assert [(row["run"], row["rank"]) for row in rows] == [("good", "1"), ("good", "1")]
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: bad is left out: ") and DAMAGE[damage] in warning


def test_the_recipes_name_is_provenance(small_run, tmp_path):
    runs = tmp_path / "runs"
    for seed, recipe in enumerate(("glyphs", "mine")):
        folder = variant(small_run, runs / recipe, seed=seed, config={"recipe": recipe})
        edit(folder / "result.json", lambda value, recipe=recipe: value["run"].update(recipe=recipe))
    (row,) = board("--runs", runs, "--csv", tmp_path / "board.csv")
    assert (row["recipe"], row["seeds"], row["csv_version"]) == ("glyphs; mine", "2", "2")


def test_runs_of_different_code_are_never_pooled_and_that_is_said(small_run, tmp_path, capsys, monkeypatch):
    codes = {"s0": "a" * 8, "s1": "a" * 8, "s2": "b" * 8, "s3": ""}
    monkeypatch.setattr(Run, "code_digest", property(lambda run: codes.get(run.folder.name, "")))
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    for seed in range(4):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=seed / 100)
    variant(small_run, runs / "other", reg="none")
    rows = {row["run"]: row["code"] for row in board("--runs", runs, "--csv", file)}
    assert rows == {"s{0,1}": "a" * 8, "s2": "b" * 8, "s3": "", "other": ""}
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    named = f"s0, s1 (code {'a' * 8}), s2 (code {'b' * 8}), s3 (code unknown)"
    assert warning == f"warning: not pooled, because trained by different code: {named}", "once, not for each task"
    before = file.read_bytes()
    for _ in range(2):
        assert {row["run"]: row["code"] for row in board("--runs", runs, "--csv", file, "--append")} == rows
    assert len(file.read_bytes()) == len(before.replace(b"paired differences", b"ci95"))


def test_transductive_rows_are_ranked_by_themselves(small_run, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "a")
    variant(small_run, runs / "b", reg="none", gain=-0.1, row={"transform": "center+l2"})
    variant(small_run, runs / "c", gain=0.3, row={"setting": "transductive"})
    rows = board("--runs", runs, "--csv", file, "--markdown", tmp_path / "board.md")
    expected = [
        ("a", "1", "inductive", "none"),
        ("b", "2", "inductive", "center+l2"),
        ("c", "1", "transductive", "none"),
    ]
    assert [(row["run"], row["rank"], row["setting"], row["transform"]) for row in rows] == expected
    said, written = capsys.readouterr().out, (tmp_path / "board.md").read_text()
    for text, head in ((said, "proto after "), (said, " center+l2 "), (written, "| proto after center+l2 |")):
        assert "glyphs 5-way 1-shot, transductive" in text and head in text


def test_the_terminals_table_breaks_names_at_their_signs_only(small_run, tmp_path, capsys):
    variant(small_run, tmp_path / "runs" / "a", reg="dropout@1,2:drop_prob=0.1+dropblock@3,4:block_size=5")
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    said = capsys.readouterr().out
    for piece in ("dropout@1,2:", "drop_prob=0.1+", "dropblock@3,4:", "block_size=5"):
        assert f" {piece} " in said
    assert all(len(line) <= 80 for line in said.split("10,000 episodes")[0].splitlines()[:8])


VERSION_1 = ROOT / "tests" / "fixtures" / "leaderboard-version-1.csv"


def test_rows_of_version_1_are_kept_by_themselves(small_run, tmp_path, capsys):
    file = tmp_path / "board.csv"
    shutil.copy(VERSION_1, file)
    old = {(row["run"], row["shots"]): row for row in read(file)}
    variant(small_run, tmp_path / "runs" / "new")
    for _ in range(2):  # the second time, from the version that this command writes
        rows = {
            (row["run"], row["shots"]): row
            for row in board("--runs", tmp_path / "runs", "--csv", file, "--append", shots=None)
        }
        assert rows.keys() == old.keys() | {("new", "1"), ("new", "5")}
        for name, before in old.items():
            same = before.keys() - {"rank", "tasks", "rank_by", "each_run"}
            assert {column: rows[name][column] for column in same} == {column: before[column] for column in same}
            added = {column: rows[name][column] for column in ("setting", "transform", "code", "csv_version")}
            assert added == {"setting": "inductive", "transform": "none", "code": "", "csv_version": "1"}
        assert rows["new", "1"]["csv_version"] == "2"
        said = capsys.readouterr().out
        assert (
            f"warning: 4 rows of {file} are of an older version" in said and "without --append, to renew them" in said
        )


def test_rows_of_version_1_give_way_to_their_own_runs(tmp_path, capsys):
    kept = ROOT / "results" / "glyphs-methods" / "conv4-none"
    file = tmp_path / "board.csv"
    shutil.copy(VERSION_1, file)
    shutil.copytree(kept, tmp_path / "runs" / "again")
    rows = board("--runs", tmp_path / "runs", "--csv", file, "--append")
    assert {row["run"]: row["csv_version"] for row in rows} == {"again": "2", "targetdrop-seed{0,1}": "1"}
    assert "warning: 2 rows of" in capsys.readouterr().out


def test_a_damaged_csv_of_version_1_is_an_error(small_run, tmp_path, capsys):
    file = tmp_path / "board.csv"
    file.write_bytes(VERSION_1.read_bytes().replace(b"proto,none,93.38", b"proto,none,94.38"))
    assert run("--runs", small_run.parent, "--csv", file, "--append") == console.USER_ERROR
    assert "accuracy of row 1 does not follow" in one_line_error(capsys)
    file.write_bytes(VERSION_1.read_bytes().replace(b",glyphs,62a77e0d8e01", b",mine,62a77e0d8e01"))
    assert run("--runs", small_run.parent, "--csv", file, "--append") == console.USER_ERROR
    assert "row 1 does not agree with its key" in one_line_error(capsys)


def test_the_kept_leaderboard_is_that_of_the_kept_runs(tmp_path):
    """Its four files, made again from the run folders beside them."""
    ends = {"csv": "csv", "markdown": "md", "html": "html"}
    files = {flag: tmp_path / f"leaderboard.{end}" for flag, end in ends.items()}
    assert run("--runs", ROOT / "results", *(word for flag in files for word in (f"--{flag}", files[flag]))) == 0
    for file in (*files.values(), tmp_path / "leaderboard-classification.csv"):
        assert file.read_bytes() == (ROOT / "results" / file.name).read_bytes(), file.name


def test_a_place_that_cannot_be_written_is_one_line(small_run, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run("--runs", small_run.parent, "--csv", tmp_path / "file" / "board.csv") == console.USER_ERROR
    assert "is a file, not a folder" in one_line_error(capsys)
    twice = tmp_path / "board"
    assert run("--runs", small_run.parent, "--csv", twice, "--html", twice) == console.USER_ERROR
    assert "name one file twice" in one_line_error(capsys)
    assert (
        run("--runs", small_run.parent, "--csv", tmp_path / "new" / "board.csv", "--html", tmp_path)
        == console.USER_ERROR
    )
    assert f"{tmp_path} is a folder; give a file" in one_line_error(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["csv", "markdown", "html"])
def test_what_is_no_file_is_refused_and_stays(small_run, tmp_path, capsys, kind):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        flags = ["--csv", tmp_path / "b.csv", f"--{kind}", tmp_path / name]
        assert run("--runs", small_run.parent, *flags) == console.USER_ERROR
        assert f"{tmp_path / name} is no regular file" in one_line_error(capsys)
    assert (tmp_path / "pipe").is_fifo() and sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_files_are_written_through_links(small_run, tmp_path):
    (tmp_path / "kept").mkdir()
    names = {"csv": "b.csv", "markdown": "b.md", "html": "b.html"}
    for name in names.values():
        (tmp_path / name).symlink_to(f"kept/{name}")
    flags = [flag for kind, name in names.items() for flag in (f"--{kind}", tmp_path / name)]
    assert run("--runs", small_run.parent, *flags) == run("--runs", small_run.parent, *flags, "--append") == 0
    assert sorted(os.listdir(tmp_path / "kept")) == sorted(names.values())
    assert all((tmp_path / name).is_symlink() for name in names.values())


def test_no_csv_and_no_name(small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--runs", small_run.parent, "--csv", "none", "--html", "b.html") == 0
    assert os.listdir() == ["b.html"] and "2 rows in b.html" in capsys.readouterr().out
    assert ">all rows as CSV</a>" not in (tmp_path / "b.html").read_text()
    assert run("--runs", small_run.parent, "--csv", "none", "--append") == console.USER_ERROR
    assert "give --csv FILE" in one_line_error(capsys)
    for flags in (["--csv", ""], ["--csv", "."], ["--html", ""]):
        assert run("--runs", small_run.parent, *flags) == console.USER_ERROR
        assert f"{flags[0]} {flags[1]!r}: give a file, or none" in one_line_error(capsys)
    assert os.listdir() == ["b.html"]


def test_one_file_is_not_written_twice_whatever_it_is_called(small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.md").symlink_to("b.html")
    for flags in (
        ["--csv", "same.csv", "--html", tmp_path / "same.csv"],
        ["--csv", "c.csv", "--html", "c-classification.csv"],
        ["--markdown", "link.md", "--html", "b.html"],
    ):
        assert run("--runs", small_run.parent, *flags) == console.USER_ERROR
        assert "name one file twice" in one_line_error(capsys)
    assert os.listdir() == ["link.md"]


def test_the_terminal_names_the_runs_where_nothing_else_tells_rows_apart(small_run, tmp_path, capsys):
    for name, weight_decay in (("mild", 0.1), ("strong", 0.2)):
        variant(small_run, tmp_path / "runs" / name, config={"weight_decay": weight_decay})
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    out = capsys.readouterr().out
    assert re.search(r"rank +seeds +accuracy \(%\) +run", out), "columns that say nothing are left out"
    assert re.search(r"± [\d.]+ +mild", out) and re.search(r"± [\d.]+ +strong", out)
    assert f"All rows: regularizer targetdrop, backbone {NETWORK}, head proto, steps " in out
    variant(small_run, tmp_path / "runs" / "none", reg="none")
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    out = capsys.readouterr().out
    assert re.search(r"rank +regularizer +seeds +accuracy \(%\) +run", out)


def test_the_terminal_says_what_rows_were_trained_on(small_run, tmp_path, capsys):
    variant(small_run, tmp_path / "runs" / "a")
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    assert capsys.readouterr().out.count("Trained on glyphs 5-way 1-shot.") == 2
    variant(small_run, tmp_path / "runs" / "b", reg="none", config={"dataset": "birds", "shots": 5})
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    out = capsys.readouterr().out
    assert "glyphs 5-way 1-shot (a)" in out and "birds 5-way 5-shot (b)" in out


def test_runs_that_are_not_finished_are_named(small_run, tmp_path, capsys):
    variant(small_run, tmp_path / "runs" / "done")
    (variant(small_run, tmp_path / "runs" / "cut") / "result.json").unlink()
    assert run("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv") == 0
    assert "Left out, because they are not finished: cut." in capsys.readouterr().out


HOSTILE = {
    "=HYPERLINK(1)": r"\=HYPERLINK",
    "+1+cmd|' /C calc'!A0": r"cmd\|",
    "-2+3": "-2+3",
    "@SUM(1)": "@SUM(1)",
    "'=1": "'=1",
    "\t=9": "=9",
    "<script>alert(1)</script>": r"\<script\>",
    "[here](javascript:alert(1))": r"\[here\]",
    "see https://evil.example www.evil.example": r"https\:// www\.".split()[0],
    "one\n\n# two | three": r"one # two \| three",
    "\x1b[2J\x07\x9b31m": r"\\x1b\[2J\\x07\\x9b31m",
    "\u202eevil": r"\\u202eevil",
    "&lt;b&gt; $x$": r"&amp;lt;b&amp;gt; \$x\$",
}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_what_others_named_is_shown_and_does_nothing(small_run, tmp_path, capsys, name):
    variant(small_run, tmp_path / "runs" / "a", reg=name)
    variant(small_run, tmp_path / "runs" / "b", reg="none", noise=0.05)
    files = {kind: tmp_path / f"board.{kind}" for kind in ("csv", "markdown", "html")}
    flags = ["--runs", tmp_path / "runs", *(each for kind, path in files.items() for each in (f"--{kind}", path))]
    assert run(*flags) == 0
    out = capsys.readouterr().out
    assert not set(map(ord, out)) & {*range(9), *range(11, 32), *range(127, 160), 0x202E}
    lines = [line for line in files["markdown"].read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 8 and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert sum(HOSTILE[name].lstrip("\\") in line for line in lines) == 2
    assert not re.search(r"(?<!\\)<script|https://|(?i:(?<!\\)www\.)|[\x1b\x9b\u202e]", "".join(lines))
    cells = {row["regularizer"] for row in read(files["csv"])}
    assert not any(cell[:1] in "=+-@\t\r" for cell in cells)
    assert cells == {"none", f"'{name}" if re.match(r"'*[=+\-@\t\r]", name) else name}
    before = files["csv"].read_bytes()
    assert run(*flags, "--append") == 0, "it is read back as it was"
    assert files["csv"].read_bytes() == before.replace(b"paired differences", b"ci95")
    assert "<script>alert" not in files["html"].read_text()


def test_errors_and_names_do_not_steer_the_terminal(capsys):
    assert run("--runs", "\x1b]0;evil\x07\udce9\u202e") == console.USER_ERROR
    error = one_line_error(capsys)
    assert r"\x1b]0;evil\x07\udce9\u202e is not a folder" in error


def test_folders_that_a_dot_hides_are_no_runs(small_run, tmp_path):
    """Such as .new-..., left by a training or `prepare` that was killed."""
    for name in ("a", ".new-x1y2z3a4", ".new-b/half"):
        shutil.copytree(small_run, tmp_path / name)
    (tmp_path / ".new-b/half/result.json").unlink()
    scores, damaged = gathering.gather(tmp_path)
    assert {score.own["run"] for score in scores} == {"a"} and not damaged
    assert gathering.unfinished(tmp_path) == []


def test_runs_behind_links_are_found_once(small_run, tmp_path, capsys):
    kept, runs = tmp_path / "kept", tmp_path / "runs"
    variant(small_run, kept / "far" / "a")
    variant(small_run, runs / "b", reg="none")
    (runs / "elsewhere").symlink_to(kept)
    (runs / "again").symlink_to(kept / "far" / "a")  # the same run by a second path
    (runs / "b" / "back").symlink_to(runs)  # a loop
    (kept / "runs").symlink_to(runs)
    (runs / "nowhere").symlink_to(tmp_path / "nothing")
    rows = board("--runs", runs, "--csv", tmp_path / "board.csv", "--no-aggregate")
    assert sorted(row["run"] for row in rows) == ["again", "b"]
    assert "Left out" not in capsys.readouterr().out


def longer(source, folder, episodes):
    """Give a copy of a run a second 1-shot result, on `episodes` tasks in all, as `evaluate --episodes` leaves it."""

    def add(result: dict) -> None:
        row = next(row for row in result["results"] if row["shots"] == 1)
        values = np.load(folder / row["episodes_file"])
        values = np.concatenate([values, np.resize(values, episodes - len(values))])
        np.save(folder / f"episodes-{episodes}.npy", values)
        found = summarise(values)
        figures = {"accuracy": found.accuracy, "std": found.std, "ci95": found.ci95}
        name = {"episodes_file": f"episodes-{episodes}.npy", "episodes_digest": f"{episodes:064}"}
        result["results"].append(row | figures | name | {"episodes": episodes})

    edit(folder / "result.json", add)
    return folder


def test_a_longer_evaluation_of_one_seed_leaves_it_in_its_row(small_run, tmp_path, capsys):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    folders = [variant(small_run, runs / f"s{seed}", seed=seed, gain=seed / 100) for seed in range(3)]
    before = board("--runs", runs, "--csv", file)
    longer(small_run, folders[2], 60)
    capsys.readouterr()
    assert board("--runs", runs, "--csv", file) == before and before[0]["seeds"] == "3"
    said = f"of the same kind is longer, or more runs share it: 60 episodes of glyphs 5-way 1-shot ({folders[2]})."
    assert said in capsys.readouterr().out
    longer(small_run, folders[1], 60)
    assert board("--runs", runs, "--csv", file) == before, "as long as most share the shorter list"
    longer(small_run, folders[0], 60)
    (row,) = board("--runs", runs, "--csv", file)
    assert (row["episodes"], row["seeds"]) == ("60", "3"), "of two that are shared alike, the longer"


def test_a_list_of_ones_own_is_another_question(small_run, tmp_path):
    runs, file = tmp_path / "runs", tmp_path / "board.csv"
    variant(small_run, runs / "a")
    rows = board("--runs", runs, "--csv", file)
    assert "episodes_seed" not in rows[0]
    edit(runs / "a" / "result.json", lambda value: value["results"].append(
        value["results"][0] | {"episodes_seed": 7, "episodes_digest": "e" * 64}
    ))  # fmt: skip
    markdown = tmp_path / "board.md"
    rows = board("--runs", runs, "--csv", file, "--markdown", markdown)
    assert [(row["episodes_seed"], row["rank"], row["tasks"]) for row in rows] == [
        ("", "1", "common"), ("7", "1", "common")
    ]  # fmt: skip
    assert "## glyphs 5-way 1-shot, tasks of seed 7\n" in markdown.read_text()
    before = file.read_bytes()
    assert run("--runs", runs, "--csv", file, "--append") == 0
    assert file.read_bytes() == before.replace(b"paired differences", b"ci95")


def test_rows_that_were_trained_on_what_is_tested_have_a_board_of_their_own(small_run, tmp_path):
    runs, file, markdown = tmp_path / "runs", tmp_path / "board.csv", tmp_path / "board.md"
    variant(small_run, runs / "clean")
    variant(small_run, runs / "saw", reg="none", gain=0.3, row={"seen_in_training": {"classes": 3, "images": 60}})
    flags = ["--runs", runs, "--csv", file, "--markdown", markdown]
    for _ in range(2):
        rows = {row["run"]: (row["rank"], row["tasks"], row["trained_on"]) for row in board(*flags)}
        seen = "glyphs (3 classes and 60 images of what is tested)"
        assert rows == {"clean": ("1", "common", "glyphs"), "saw": ("1", "common", seen)}
        assert "## glyphs 5-way 1-shot, trained on what is tested\n" in markdown.read_text()
        flags.append("--append")


def test_a_csv_that_counts_one_seed_twice_is_refused(small_run, tmp_path, capsys):
    """As written by a sweep that varied the number of threads."""
    file = tmp_path / "board.csv"
    board("--runs", small_run.parent, "--csv", file)
    rows = list(csv.reader(io.StringIO(file.read_bytes().decode(), newline="")))
    at = rows[0].index("each_run")
    rows[1][at] = json.dumps(json.loads(rows[1][at]) * 2)
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows(rows)
    assert run("--runs", small_run.parent, "--csv", file, "--append") == console.USER_ERROR
    assert "row 1 counts one seed twice; write the file again" in one_line_error(capsys)


def test_a_row_one_seed_of_which_guesses_is_marked_and_shared_ranks_are_too(small_run, tmp_path):
    runs, markdown = tmp_path / "runs", tmp_path / "board.md"
    for seed, gain in enumerate((-0.5, 0.0)):
        variant(small_run, runs / f"s{seed}", seed=seed, gain=gain)
    variant(small_run, runs / "none", reg="none")
    assert run("--runs", runs, "--csv", tmp_path / "board.csv", "--markdown", markdown) == 0
    lines = markdown.read_text().splitlines()
    marked = [line for line in lines if "at chance" in line]
    assert len(marked) == 2 and all("s{0,1}" in line for line in marked)
    assert len([line for line in lines if line.startswith("| 1= |")]) == 4, "two rows in each of two tables"


def test_a_hundred_tasks_are_more_than_fifty(small_run, tmp_path):
    """Their numbers are texts, and compared letter by letter "100" would be less than "50"."""
    longer(small_run, variant(small_run, tmp_path / "runs" / "a"), 100)
    (row,) = board("--runs", tmp_path / "runs", "--csv", tmp_path / "board.csv")
    assert row["episodes"] == "100"


def test_the_page_says_what_each_row_was_trained_on_and_how_long(small_run, tmp_path, capsys):
    runs, page = tmp_path / "runs", tmp_path / "b.html"
    variant(small_run, runs / "a", reg="cutout")
    variant(small_run, runs / "b", reg="dropout", config={"dataset": "birds", "shots": 5})
    variant(small_run, runs / "c", reg="none", config={"regime": "supervised"})
    folder = variant(small_run, runs / "d", reg="dropblock")
    edit(folder / "config.json", lambda value: value["resolved"].update(steps=0))
    assert run("--runs", runs, "--csv", tmp_path / "b.csv", "--html", page, "--markdown", tmp_path / "b.md") == 0
    found = re.findall(r'<b>(\w+)</b>.*?class="trained" role="cell">(.*?)</td>', page.read_text())
    assert dict(found) == {
        "cutout": "5-way 1-shot, 6 steps", "dropout": "birds 5-way 5-shot, 6 steps", "none": "supervised, 6 steps",
        "dropblock": "not trained here",
    }  # fmt: skip
    cells = [line.split(" | ") for line in (tmp_path / "b.md").read_text().splitlines() if " dropblock " in line]
    assert ["nothing here" in each for each in cells] == [True, True], "in both tables"
    assert "nothing here (d)" in " ".join(capsys.readouterr().out.split())


def test_names_that_no_file_can_hold_end_no_leaderboard(small_run, tmp_path, capsys):
    """A folder's name that is not UTF-8 is written with escapes; a run whose configuration is not text is left out."""
    runs, outputs = tmp_path / "runs", ["--markdown", tmp_path / "b.md", "--html", tmp_path / "b.html"]
    variant(small_run, runs / "a")
    (runs / "a").rename(runs / os.fsdecode(b"b\xff"))
    variant(small_run, runs / "c", reg="dropout")
    edit(runs / "c" / "config.json", lambda value: value.update(reg="\ud800"))
    assert run("--runs", runs, "--csv", tmp_path / "b.csv", *outputs) == 0
    said = capsys.readouterr().out
    assert "warning: c is left out: its regularizer, '\\ud800', is no text" in said.replace("\n", " ")
    (row,) = board("--runs", runs, "--csv", tmp_path / "b.csv")
    assert row["run"] == "b\\udcff"
    assert run("--runs", runs, "--csv", tmp_path / "b.csv", "--append") == 0


def test_the_folder_may_be_a_run_itself(small_run, tmp_path):
    run_folder = variant(small_run, tmp_path / "mine")
    assert {row["run"] for row in board("--runs", run_folder, "--csv", tmp_path / "b.csv")} == {"mine"}


@pytest.mark.parametrize("flags", [["--title", "\udcff"], ["--link", "https://\udcff"]])
def test_a_title_that_is_no_text_writes_nothing(small_run, tmp_path, capsys, flags):
    variant(small_run, tmp_path / "runs" / "a")
    files = ["--csv", tmp_path / "b.csv", "--html", tmp_path / "b.html"]
    assert run("--runs", tmp_path / "runs", *files, *flags) == console.USER_ERROR
    assert f"{flags[0]} '" in one_line_error(capsys) and not list(tmp_path.glob("b.*"))


def test_a_csv_whose_name_is_not_utf_8_is_linked_to(small_run, tmp_path):
    variant(small_run, tmp_path / "runs" / "a")
    file, page = tmp_path / os.fsdecode(b"b\xff.csv"), tmp_path / "b.html"
    assert run("--runs", tmp_path / "runs", "--csv", file, "--html", page) == 0
    assert "b%FF.csv" in page.read_text()


def test_a_run_of_another_folder_that_a_newer_one_replaces_is_named_alone(small_run, tmp_path, capsys):
    """--append keeps rows of runs that are elsewhere: no path leads to those."""
    for folder, begun in (("one", "2020"), ("two", "2021")):
        place = variant(small_run, tmp_path / folder / f"in-{folder}")
        edit(place / "environment.json", lambda facts, year=begun: facts.update(started=f"{year}-01-01T00:00:00+00:00"))
        capsys.readouterr()
        append = ["--append"] * (folder == "two")
        assert run("--runs", tmp_path / folder, "--csv", tmp_path / "b.csv", *append) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a newer run has the same configuration and seed: in-one." in said
