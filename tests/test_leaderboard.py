"""python -m fewshot.leaderboard: the contract's columns, RFC 4180, ranks, wrong input."""

from __future__ import annotations

import csv
import io
import json
import shutil

from commands import one_line_error

from fewshot import cli, leaderboard

CONTRACT = (
    "rank,dataset,ways,shots,backbone,head,regularizer,accuracy,ci95,episodes,seeds,train_seconds,device,parameters,"
    "recipe,commit,fingerprint,episodes_digest,run"
).split(",")


def run(*args) -> int:
    return cli.run(leaderboard.main, [str(arg) for arg in args])


def second_run(small_run, runs, change):
    """A copy of the run whose result was edited."""
    folder = shutil.copytree(small_run, runs / "b")
    result = json.loads((folder / "result.json").read_text())
    change(result)
    (folder / "result.json").write_text(json.dumps(result))


def test_rows_are_ranked_within_their_task_and_parse_as_rfc_4180(small_run, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(small_run, runs / "a")

    def better(result):
        result["run"]["regularizer"] = 'dropblock:drop_prob=0.1,block_size=2 "mine"'
        for row in result["results"]:
            row["accuracy"] += 0.001

    second_run(small_run, runs, better)
    assert run("--runs", runs, "--csv", tmp_path / "new" / "board.csv") == 0
    text = (tmp_path / "new" / "board.csv").read_bytes().decode()
    assert text.count("\r\n") == 5 and text.count("\n") == 5
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT
    assert [(row["shots"], row["rank"], row["run"]) for row in rows] == [
        ("1", "1", "b"), ("1", "2", "a"), ("5", "1", "b"), ("5", "2", "a"),
    ]  # fmt: skip
    assert rows[0]["regularizer"] == 'dropblock:drop_prob=0.1,block_size=2 "mine"'
    original = json.loads((small_run / "result.json").read_text())["results"][0]
    assert rows[1]["accuracy"] == f"{100 * original['accuracy']:.2f}"
    assert all(row[key] for row in rows for key in row if key != "commit"), "every column is filled"


def test_no_runs_and_foreign_results_are_one_line_and_overwrite_nothing(small_run, tmp_path, capsys):
    board = tmp_path / "board.csv"
    board.write_text("kept")
    assert run("--runs", tmp_path / "nowhere", "--csv", board) == cli.USER_ERROR
    assert "is not a folder" in one_line_error(capsys)
    (tmp_path / "empty").mkdir()
    assert run("--runs", tmp_path / "empty", "--csv", board) == cli.USER_ERROR
    assert "no finished run below" in one_line_error(capsys)
    (tmp_path / "foreign").mkdir()
    shutil.copytree(small_run, tmp_path / "foreign" / "a")
    second_run(small_run, tmp_path / "foreign", lambda result: result["results"][0].pop("episodes_digest"))
    assert run("--runs", tmp_path / "foreign", "--csv", board) == cli.USER_ERROR
    assert "b/result.json is not a result of ours" in one_line_error(capsys)
    assert board.read_text() == "kept"


def test_a_place_that_cannot_be_written_is_one_line(small_run, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run("--runs", small_run.parent, "--csv", tmp_path / "file" / "board.csv") == cli.USER_ERROR
    assert "is a file, not a folder" in one_line_error(capsys)
