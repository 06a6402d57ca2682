"""Unbalanced and transductive results, from the command line to every report: labelled, and never mixed with others."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch
from boards import variant
from commands import ROOT, one_line_error

import fewshot
from fewshot import compare, evaluate, heads, leaderboard
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.evaluation.solve import accuracies, solve_episodes
from fewshot.runs import Run

UNBALANCED = ["--queries", "3", "--query-alpha", "2", "--episodes", "40", "--threads", "1", "--precision", "fp32"]
NAME = "glyphs-test-5w1s3q-dirichlet2"


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory):
    """Two runs: balanced rows at 1 and 5 shots, and unbalanced rows at 1 shot by their own head and by softkmeans."""
    folder = tmp_path_factory.mktemp("unbalanced") / "runs"
    shutil.copytree(small_run, folder / "a")
    variant(small_run, folder / "b", config={"lr": 0.05}, noise=0.01)
    for head in ([], ["--head", "softkmeans"]):
        both = [str(folder / name) for name in "ab"]
        assert console.run(evaluate.main, [*both, "--shots", "1", *UNBALANCED, *head]) == 0
    return folder


def test_evaluate_keeps_the_rows_side_by_side(small_run, runs, capsys):
    balanced, rows = Run.open(small_run).rows, Run.open(runs / "a").rows
    assert rows[:2] == balanced and not any("query_alpha" in row for row in balanced)
    assert [(row["query_alpha"], row["head"], row["setting"]) for row in rows[2:]] == [
        (2.0, "proto", "inductive"), (2.0, "softkmeans", "transductive"),
    ]  # fmt: skip
    own, other = rows[2:]
    assert (own["task_list"], own["queries"], own["episodes"]) == (NAME, 3, 40)
    assert own["episodes_file"] == f"episodes-{NAME}.npy" and other["episodes_file"].startswith(f"episodes-{NAME}-soft")
    tasks = np.load(runs / "a" / own["tasks_file"])
    assert tasks["classes"].shape == (40, 5) and len(tasks["disjoint"]) > 10
    files = {path.name: path.read_bytes() for path in (runs / "a").iterdir() if path.suffix == ".npy"}
    arguments = [str(runs / "a"), "--tasks", NAME, "--threads", "1", "--precision", "fp32", "--head", "softkmeans"]
    folder = shutil.copytree(runs / "a", runs.parent / "again")
    assert console.run(evaluate.main, [str(folder), *arguments[1:]]) == 0
    assert Run.open(folder).rows[-1]["episodes"] == 10_000
    assert all((folder / name).read_bytes() == data for name, data in files.items())
    said = capsys.readouterr().out
    assert "5-way 1-shot, Dirichlet 2, transductive" in said and "on average where their numbers are drawn" in said


def test_an_accuracy_is_over_all_queries_of_a_task():
    """The same as one task at a time, by the nearest class mean."""
    split = open_dataset("glyphs")["test"]
    torch.manual_seed(0)
    embeddings = torch.randn(len(split.classes), 8)[torch.from_numpy(split.labels)] + torch.randn(len(split.images), 8)
    protocol = Protocol(5, 2, 4, query_alpha=1.0)
    sampler = EpisodeSampler(split, protocol, 0)
    (right,) = solve_episodes(heads.build("proto"), embeddings, [Tasks(sampler, 60)])
    values, expected = accuracies(right, protocol.queries), []
    for number in range(60):
        (support,), (query,), (labels,) = sampler.episodes(number, 1)
        nearest = torch.cdist(embeddings[query], embeddings[support].mean(1)).argmin(1).numpy()
        expected.append((nearest == labels).mean())
        assert right[number].tolist() == [((nearest == labels) & (labels == c)).sum() for c in range(5)]
    assert np.allclose(values, expected) and len(set(values)) > 5


def test_benchmark_says_it_and_scores_as_evaluate(runs):
    (row,) = [row for row in Run.open(runs / "a").rows if row.get("query_alpha") and row["head"] == "proto"]
    model = fewshot.load(runs / "a", device="cpu")
    (score,) = fewshot.benchmark(model, "glyphs", shots=1, queries=3, query_alpha=2.0, episodes=40)
    assert score.accuracy == pytest.approx(row["accuracy"], abs=1e-6)
    assert score.episodes_digest == row["episodes_digest"]
    assert score.query_alpha == 2.0 and score.task_list == NAME
    (joint,) = fewshot.benchmark(model, "glyphs", "tim", 1, queries=3, query_alpha=2, episodes=20)
    assert "glyphs test, 5-way 1-shot, Dirichlet 2, transductive: " in str(joint)
    with pytest.raises(UserError, match="--query-alpha 'two': give a number from 0.01 to"):
        fewshot.benchmark(model, "glyphs", query_alpha="two")


def board(file) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_every_form_of_the_leaderboard_ranks_them_apart(runs, tmp_path, capsys):
    files = {kind: tmp_path / f"board.{kind}" for kind in ("csv", "md", "html")}
    arguments = ["--runs", str(runs), "--csv", files["csv"], "--markdown", files["md"], "--html", files["html"]]
    assert console.run(leaderboard.main, list(map(str, arguments))) == 0
    rows = board(files["csv"])
    found = {(row["query_alpha"], row["setting"], row["shots"]): [] for row in rows}
    for row in rows:
        found[row["query_alpha"], row["setting"], row["shots"]].append(row["rank"])
    assert found.keys() == {
        ("", "inductive", "1"), ("", "inductive", "5"), ("2.0", "inductive", "1"), ("2.0", "transductive", "1"),
    }  # fmt: skip
    assert all(ranks[0] == "1" and len(ranks) == 2 for ranks in found.values())
    assert {row["tasks"] for row in rows} == {"common"}
    for said in (capsys.readouterr().out, files["md"].read_text(), files["html"].read_text()):
        for name in ("5-way 1-shot", "5-way 1-shot, Dirichlet 2", "5-way 1-shot, Dirichlet 2, transductive"):
            assert f"glyphs {name}" in said
        assert "3 queries a class on average" in " ".join(said.split())


def test_a_file_without_the_column_is_read_and_one_with_it_too(small_run, runs, tmp_path):
    file = tmp_path / "board.csv"
    shutil.copytree(small_run, tmp_path / "balanced" / "a")
    for folder, more in ((tmp_path / "balanced", 0), (runs, 4), (runs, 4)):
        assert console.run(leaderboard.main, ["--runs", str(folder), "--csv", str(file), "--append"]) == 0
        rows = board(file)
        assert ("query_alpha" in rows[0]) == bool(more)
        assert len([row for row in rows if row.get("query_alpha")]) == more
    text = file.read_text()
    file.write_text(text.replace(",2.0\n", ",3.0\n"))
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(file), "--append"]) == console.USER_ERROR


def test_compare_takes_each_protocol_by_itself(runs, small_run, tmp_path, capsys):
    assert console.run(compare.main, [str(runs / name) for name in "ab"]) == 0
    said = capsys.readouterr().out
    assert "glyphs test 5-way 1-shot, Dirichlet 2, 3 queries a class on average, 40 episodes" in said
    assert "glyphs test 5-way 1-shot, 15 queries a class, 50 episodes" in said
    balanced = variant(small_run, tmp_path / "balanced", config={"lr": 0.02})
    assert console.run(compare.main, [str(runs / "a"), str(balanced)]) == 0
    said = capsys.readouterr().out
    assert "glyphs test 5-way 1-shot, 15 queries a class, 50 episodes" in said and "on average, " not in said
    assert f"Dirichlet 2 of 3 queries: there is no such result of {balanced}" in said, "a warning"


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--query-alpha", "2"], "75 queries, which may all be of one class"),
        (["--query-alpha", "0"], "--query-alpha 0.0: give a number from 0.01"),
        (["--query-alpha", "2", "--tasks", NAME], "--tasks says what --query-alpha says"),
    ],
)
def test_wrong_input_is_one_line(small_run, capsys, flags, complaint):
    assert console.run(evaluate.main, [str(small_run), *flags]) == console.USER_ERROR
    assert complaint in one_line_error(capsys)


def test_the_docs_of_unbalanced_tasks_name_a_list_that_is_there():
    assert NAME in {path.stem for path in (ROOT / "episodes").glob("*.json")}
