"""Run folders of networks that were trained elsewhere: benchmark(out=...), and what the commands make of them."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from commands import one_line_error

import fewshot
from fewshot import compare, evaluate, leaderboard, show, train
from fewshot.core import console
from fewshot.core.errors import UserError

OPTIONS = {"dataset": "glyphs", "shots": (1, 5), "episodes": 50}  # those of `small_run`


class Pixels(torch.nn.Module):
    def __init__(self, side=8):
        super().__init__()
        self.side, self.scale = side, torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * torch.nn.functional.adaptive_avg_pool2d(x, self.side)


def learner(support, labels, query):
    support, query = (torch.nn.functional.adaptive_avg_pool2d(part, 4).flatten(1) for part in (support, query))
    return -torch.cdist(query, torch.stack([support[labels == way].mean(0) for way in range(5)]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two networks, two seeds of a third, which its origin names, and a learner."""
    folder = tmp_path_factory.mktemp("foreign")
    fewshot.benchmark(Pixels(), **OPTIONS, out=folder / "a")
    fewshot.benchmark(Pixels(4), **OPTIONS, head="r2d2:lam=5", transform="l2", out=folder / "b")
    for seed in (0, 1):
        origin = fewshot.Origin("theirs", reg="dropout", dataset="imagenet", seed=seed, train_seconds=60)
        fewshot.benchmark(Pixels(5 + seed), **OPTIONS, out=folder / f"c{seed}", origin=origin)
    fewshot.evaluate_learner(learner, **OPTIONS, out=folder / "d", name="tiny")
    return folder


def test_its_rows_are_what_benchmark_returned(runs, tmp_path):
    scores = fewshot.benchmark(Pixels(), **OPTIONS, out=tmp_path / "again")
    rows = json.loads((tmp_path / "again" / "result.json").read_text())["results"]
    for score, row in zip(scores, rows, strict=True):
        for name in ("accuracy", "std", "ci95", "episodes_digest", "fingerprint", "setting", "task_list", "shots"):
            assert row[name] == getattr(score, name)
        assert (np.load(tmp_path / "again" / row["episodes_file"]) == score.accuracies.astype(np.float32)).all()
    first, again = (json.loads((folder / "config.json").read_text()) for folder in (runs / "a", tmp_path / "again"))
    assert first.pop("sha256") != again.pop("sha256") and first["resolved"].pop("id") != again["resolved"].pop("id")
    assert first == again and first["resolved"]["parameters"] == 1 and first["regime"] == "foreign"


def test_compare_pairs_it_with_a_trained_run_task_by_task(runs, small_run, capsys):
    assert console.run(compare.main, [str(small_run), *(str(runs / name) for name in ("a", "b", "c0", "c1", "d"))]) == 0
    said = capsys.readouterr().out
    for entry in ("backbone=Pixels", "head=r2d2:lam=5", "transform=l2", "backbone=theirs", "reg=dropout", "head=tiny"):
        assert entry in said
    assert said.count("crop_padding=") == said.count("epochs=2") == 1  # of our own training alone
    assert said.count("seeds 0 1") == 1 and "5-way 1-shot" in said and re.search("[A-F] against [A-F]", said)
    assert console.run(compare.main, [str(runs / "c0"), str(runs / "c1")]) == 2
    assert "nothing to compare" in one_line_error(capsys)


def test_the_leaderboard_ranks_it_and_says_what_is_not_known(runs, tmp_path, capsys):
    argv = ["--runs", str(runs)]
    for kind in ("csv", "html", "markdown"):
        argv += [f"--{kind}", str(tmp_path / f"b.{kind}")]
    for _ in range(2):  # what it wrote is read back
        assert console.run(leaderboard.main, [*argv, "--append"]) == 0
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text("utf-8").splitlines()))
    one_shot = {row["run"]: row for row in rows if row["shots"] == "1"}
    assert set(one_shot) == {"a", "b", "c{0,1}", "d"} and len(rows) == 8
    assert one_shot["a"]["steps"] == one_shot["a"]["train_ways"] == one_shot["d"]["parameters"] == ""
    theirs = one_shot["c{0,1}"]
    assert (theirs["backbone"], theirs["regularizer"], theirs["trained_on"]) == ("theirs", "dropout", "imagenet")
    assert (theirs["seeds"], theirs["recipe"], theirs["train_seconds"]) == ("2", "foreign", "60.0")
    assert {row["head"] for row in one_shot.values()} == {"proto", "r2d2:lam=5", "tiny"}
    capsys.readouterr()
    lines = [line.split("|")[-5:] for line in (tmp_path / "b.markdown").read_text().splitlines()]
    times = {cells[3].strip(): cells[1].strip() for cells in lines if len(cells) == 5}
    assert times["a"] == "" and times["c{0,1}"] == "1m00s"


def test_two_networks_are_never_one_and_copies_are(runs, tmp_path, capsys):
    fewshot.benchmark(Pixels(), **OPTIONS, out=tmp_path / "again")
    assert console.run(compare.main, [str(runs / "a"), str(tmp_path / "again")]) == 2
    assert "are one training" in one_line_error(capsys)
    fewshot.benchmark(Pixels(7), **OPTIONS, out=tmp_path / "other")
    assert console.run(compare.main, [str(runs / "a"), str(tmp_path / "other")]) == 0
    assert "init=" in capsys.readouterr().out


@pytest.mark.parametrize(
    "call",
    [
        lambda run: evaluate.main([run]), lambda run: show.main(["cam", run]), lambda run: show.main(["curves", run]),
        lambda run: train.main(["--dataset", "glyphs", "--init", run]), lambda run: fewshot.load(run),
    ],
)  # fmt: skip
def test_what_needs_the_network_says_that_it_is_not_there(runs, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds results alone: its network was trained elsewhere"):
        call(str(runs / "a"))


def test_nothing_is_replaced_and_nothing_is_left_half_written(runs, tmp_path):
    network = Pixels()
    network.forward = lambda x: pytest.fail("no work is done in vain")
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    for out, why in ((tmp_path / "taken", "exists: give another out"), (tmp_path / "file" / "x", "is a file")):
        with pytest.raises(UserError, match=why):
            fewshot.benchmark(network, **OPTIONS, out=out)
    with pytest.raises(UserError, match="not finite"):
        fewshot.benchmark(lambda_module(lambda x: x * torch.nan), **OPTIONS, out=tmp_path / "broken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def lambda_module(function):
    module = torch.nn.Flatten()
    module.register_forward_hook(lambda _, __, output: function(output))
    return module


def test_a_head_that_came_as_an_object_is_known_by_its_options_and_weights(tmp_path):
    heads = [fewshot.heads.build("r2d2", 192), fewshot.heads.build("r2d2:lam=7", 192), fewshot.heads.build("r2d2", 192)]
    for number, head in enumerate(heads):
        fewshot.benchmark(Pixels(), **OPTIONS, head=head, out=tmp_path / str(number))
    names = [json.loads((tmp_path / str(n) / "config.json").read_text())["head"] for n in range(3)]
    assert names[0].startswith("R2D2-") and names[0] == names[2] != names[1]


class Tempered(fewshot.heads.Head):
    """A user's own head, with an option that no text of torch's tells."""

    trainable = False

    def __init__(self, temperature=1.0):
        super().__init__()
        self.temperature = temperature

    def solve(self, support, targets, query):
        return query @ support.transpose(1, 2) @ targets / self.temperature


def test_two_heads_of_a_users_own_are_two_methods(tmp_path, capsys):
    for name, head in (("a", Tempered()), ("b", Tempered(2.0)), ("c", Tempered().eval())):
        fewshot.benchmark(Pixels(), **OPTIONS, head=head, out=tmp_path / name)
    assert console.run(compare.main, [str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    capsys.readouterr()
    assert console.run(compare.main, [str(tmp_path / "a"), str(tmp_path / "c")]) == 2
    assert "are one training" in one_line_error(capsys)


def test_a_model_of_ours_without_a_transform_has_none(small_run, tmp_path):
    fewshot.benchmark(fewshot.load(small_run), **OPTIONS, out=tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["results"]
    assert {row["transform"] for row in rows} == {"none"}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"labels": [0, 0, 1, 1], "out": "x"}, "prepare a data set for out"),
        ({"labels": [0, 0, 1, 1], "origin": fewshot.Origin()}, "give out, too"),
    ],
)
def test_a_run_needs_images_that_are_known(options, expected):
    with pytest.raises(UserError, match=expected):
        fewshot.benchmark(np.zeros((4, 2)), **options)


def test_an_origin_that_is_none_is_one_line():
    with pytest.raises(UserError, match="origin: seed is 'one', not an integer"):
        fewshot.Origin(seed="one")


def test_what_is_no_origin_is_refused_before_the_work(tmp_path):
    for score in (fewshot.benchmark, fewshot.evaluate_learner):
        with pytest.raises(UserError, match="origin={'network': 'x'}: give a fewshot.Origin"):
            score(None, origin={"network": "x"}, out=tmp_path / "run")


def test_what_saw_all_queries_together_is_kept_as_transductive(tmp_path):
    """Otherwise tables would rank it among those that did not. A learner is named after its function."""
    fewshot.evaluate_learner(learner, **OPTIONS, setting="transductive", out=tmp_path / "learner")
    fewshot.benchmark(Pixels(), **OPTIONS, head="softkmeans", out=tmp_path / "softkmeans")
    for name in ("learner", "softkmeans"):
        rows = json.loads((tmp_path / name / "result.json").read_text())["results"]
        assert rows and {(row["setting"], row["head"]) for row in rows} == {("transductive", name)}
