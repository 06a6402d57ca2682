"""Heads that are told the form of embeddings, and heads that need training: trained, evaluated, refused."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch
import torch
from commands import SMALL, one_line_error

import fewshot
from fewshot import evaluate, heads, train
from fewshot.backbones import Foreign
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.heads import Head
from fewshot.heads._base import prototypes
from fewshot.runs import Run

EVALUATION = ["--precision", "fp32", "--episodes", "50", "--threads", "1", "--shots", "1", "5"]


class Projects(Head):
    """Inner products with class means after a linear layer of the embeddings' size."""

    def begin(self, features, shape):
        self.shape = shape
        self.layer = torch.nn.Linear(features, 4)

    def solve(self, support, targets, query):
        return self.layer(query) @ prototypes(self.layer(support), targets).mT


class Averaged(Foreign):
    """A network whose embedding is the average of its map."""

    def __init__(self, image_size: int = 32) -> None:
        layers = [torch.nn.Conv2d(3, 4, 3, stride=8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        super().__init__(image_size, torch.nn.Sequential(*layers), stages=("0",))


LEARN = ["relation:loss=mse", "anil:learn_lr=true", "lrd2:learn_lam=true", f"{__name__}.Projects"]


@pytest.fixture(scope="module", params=LEARN)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param.partition(":")[0]
    assert console.run(train.main, [*SMALL, "--head", request.param, "--out", str(folder)]) == 0
    return folder


def rows(folder):
    return json.loads((folder / "result.json").read_text())["results"]


def test_training_learns_its_parameters_and_keeps_them(trained):
    own = Run.open(trained).config.head
    first = fewshot.model.build("conv4", "none", own, 32, (0.5,) * 3, (0.25,) * 3).head.state_dict()
    kept = safetensors.torch.load_file(trained / "best.safetensors")
    assert {f"head.{name}" for name in first} == {name for name in kept if name.startswith("head.")}
    assert not any(torch.equal(kept[f"head.{name}"], tensor) for name, tensor in first.items())
    assert [row["setting"] for row in rows(trained)] == ["inductive"] * 2


def test_evaluate_and_benchmark_take_what_the_run_has_learned(trained, capsys):
    before = rows(trained)
    own = Run.open(trained).config.head
    assert console.run(evaluate.main, [str(trained), *EVALUATION, "--head", own]) == 0
    assert rows(trained) == before
    model = fewshot.load(trained, device="cpu")
    scores = fewshot.benchmark(model, "glyphs", own, episodes=50)
    assert [score.accuracy for score in scores] == [row["accuracy"] for row in before]


def test_options_that_are_no_parameters_may_differ_from_the_training():
    model = fewshot.model.build("conv4", "none", "anil", 32, (0.5,) * 3, (0.25,) * 3)
    longer = model.head_for("anil:steps=50")
    assert longer.steps == 50 and torch.equal(longer.start.weight, model.head.start.weight)
    with pytest.raises(UserError, match="head anil:ways=7 has other parameters than the trained one"):
        model.head_for("anil:ways=7")


@pytest.mark.parametrize("head", ["relation", "anil"])
def test_untrained_ones_are_refused(small_run, head, capsys):
    name = type(heads.build(head)).__name__
    assert console.run(evaluate.main, [str(small_run), *EVALUATION, "--head", head]) == 2
    complaint = f"head {name} has weights that must be trained: train with it on episodes, and evaluate that run"
    assert complaint in one_line_error(capsys)
    with pytest.raises(UserError, match=complaint):
        fewshot.benchmark(torch.randn(30, 4), labels=torch.arange(30) % 6, head=head, queries=2, episodes=10)


def test_evaluate_and_benchmark_tell_others_the_form(small_run):
    spec = f"{__name__}.Projects"
    model = fewshot.load(small_run, device="cpu")
    assert model.head_for(spec).shape == (16, 2, 2)
    once, again = (fewshot.benchmark(model, "glyphs", spec, shots=5, episodes=20)[0] for _ in range(2))
    assert once.accuracy == again.accuracy  # whatever it draws, it draws the same
    z = torch.randn(60, 12, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(12)[torch.arange(60) % 6]
    features = {"labels": torch.arange(60) % 6, "shots": 2, "queries": 2, "episodes": 20}
    (score,) = fewshot.benchmark(z, head=spec, **features)
    (same,) = fewshot.benchmark(z, head=heads.build(spec), **features)  # one that nobody has told
    assert score.accuracy == same.accuracy > 0.25


@pytest.mark.parametrize("backbone", ["conv512f", f"{__name__}.Averaged"])
def test_heads_on_maps_are_refused_where_an_embedding_is_none(backbone, tmp_path, capsys):
    arguments = [*SMALL, "--backbone", backbone, "--head", "relation", "--out", str(tmp_path / "run")]
    assert console.run(train.main, arguments) == 2
    assert "head Relation works on maps, and these embeddings are not known to be" in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--head", "anil", "--regime", "supervised"], "head ANIL has weights that must be trained"),
        (["--head", "anil", "--ways", "6"], "begin for 5 classes, and these tasks have 6: train with anil:ways=6"),
        (["--head", "anil", "--test-ways", "8"], "learns where to begin for 5 classes, and these tasks have 8"),
    ],
)
def test_what_training_cannot_teach_a_head_is_told_before_it_begins(flags, complaint, tmp_path, capsys):
    assert console.run(train.main, [*SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    assert complaint in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


def test_what_contradicts_itself_is_refused():
    with pytest.raises(UserError, match="head Bad declares needs_training, and trainable = False: take one"):
        type("Bad", (Head,), {"needs_training": True, "trainable": False})
    based = {"needs_training": True, "needs_base": True, "fit_base": lambda self, features, labels: None}
    with pytest.raises(UserError, match="head Bad declares needs_training, and needs_base, which no training has"):
        type("Bad", (Head,), based)


def test_every_run_is_asked_before_the_first_is_scored(small_run, tmp_path, capsys):
    first, second = shutil.copytree(small_run, tmp_path / "first"), tmp_path / "second"
    assert console.run(train.main, [*SMALL, "--head", "anil", "--out", str(second)]) == 0
    before = (first / "result.json").read_bytes()
    capsys.readouterr()
    flags = ["--ways", "7", "--shots", "1", "--episodes", "20", "--threads", "1", "--precision", "fp32"]
    assert console.run(evaluate.main, [str(first), str(second), *flags]) == 2
    assert "learns where to begin for 5 classes, and these tasks have 7" in one_line_error(capsys)
    assert (first / "result.json").read_bytes() == before
