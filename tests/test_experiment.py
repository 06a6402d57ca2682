"""experiment.run: a configuration in, a finished run folder out; any regime; the code behind it recorded."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from commands import NETWORK, SMALL, one_line_error
from settled import CONFIG

import fewshot
from fewshot import experiment, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.experiment import recorded
from fewshot.heads import Head
from fewshot.learning.reporter import Reporter
from fewshot.runs import Run

REGIME = '''
"""Each step classifies eight images of each of four base classes: a regime in one file."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fewshot.data.augment import to_unit
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies
from fewshot.learning.regimes import Regime, Validation


@dataclass(frozen=True)
class Nearest(Regime):
    images: torch.Tensor
    validation: list
    compute: object

    @classmethod
    def build(cls, config, dataset, validation, compute):
        train = dataset["train"]
        images = torch.from_numpy(train.images[: 4 * 24].copy())
        return cls(images.view(4, 24, *images.shape[1:]), validation, compute)

    @property
    def images_per_step(self):
        return 32

    def batch(self, step):
        start = step % 3 * 8
        return to_unit(self.images[:, start : start + 8].flatten(0, 1))

    def loss(self, model, batch):
        z = F.normalize(model(batch), dim=1).view(4, 8, -1)
        logits = 10 * z.flatten(0, 1) @ z.mean(1).T
        labels = torch.arange(4).repeat_interleave(8)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def validate(self, model):
        (right, *_) = score(model, self.validation, self.compute)
        return Validation(float(accuracies(right, 15).mean()), {"mine": 0.5})
'''
DROP = """
import torch
from my_scale import SCALE
from fewshot.regularizers import Regularizer


class MyDrop(Regularizer):
    def multiplier(self, x, guide=None):
        return (torch.rand(len(x), 1, x.shape[2], 1) >= 0.2).float() * SCALE
"""


class Told(Reporter):
    def __init__(self) -> None:
        self.lines, self.steps, self.validations = [], [], []

    def say(self, text):
        self.lines.append(text)

    def step(self, step, *_):
        self.steps.append(step)

    def validation(self, epoch, epochs, accuracy, best):
        self.validations.append((epoch, epochs, list(accuracy)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on PYTHONPATH, with a user's regime and regularizer."""
    (tmp_path / "my_regime.py").write_text(REGIME)
    (tmp_path / "my_drop.py").write_text(DROP)
    (tmp_path / "my_scale.py").write_text("SCALE = 1.25\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_regime", "my_drop", "my_scale"):
        sys.modules.pop(name, None)


def test_it_runs_from_python_says_nothing_and_tells_a_reporter(tmp_path, capsys):
    told = Told()
    run = experiment.run(CONFIG, tmp_path / "run", told)
    assert run.finished and [row["shots"] for row in run.rows] == [1, 5]
    assert told.steps[-1] == 6 and told.validations == [(1, 2, ["1shot", "5shot"]), (2, 2, ["1shot", "5shot"])]
    again = experiment.run(CONFIG, tmp_path / "run", resume=True)
    assert again.folder == run.folder
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UserError, match="began with --lr 0.1, not 0.2"):
        experiment.run(dataclasses.replace(CONFIG, lr=0.2), tmp_path / "run", resume=True)


def test_a_regime_is_one_file(folder):
    assert console.run(train.main, [*SMALL, "--regime", "my_regime.Nearest", "--out", str(folder / "run")]) == 0
    run = Run.open(folder / "run")
    rows = list(run.metrics())
    assert [row["validation"] for row in rows if "validation" in row] == [{"mine": 0.5}] * 2
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert run.resolved["code"]["users"].keys() == {"my_regime.py"}


def test_a_users_code_is_copied_and_a_change_is_another_experiment(folder, capsys):
    config = dataclasses.replace(CONFIG, reg="my_drop.MyDrop")
    first = experiment.run(config, folder / "a")
    assert (first.folder / "code" / "my_drop.py").read_text() == DROP
    assert first.resolved["code"]["users"].keys() == {"my_drop.py", "my_scale.py"}
    again = experiment.run(dataclasses.replace(config, seed=1), folder / "b")
    assert again.code_digest == first.code_digest
    (folder / "my_scale.py").write_text("SCALE = 1.0\n")
    edited = experiment.run(dataclasses.replace(config, seed=2), folder / "c")
    assert edited.code_digest != first.code_digest


def test_resuming_with_other_code_says_so_and_is_recorded(folder):
    config = dataclasses.replace(CONFIG, reg="my_drop.MyDrop")
    run = experiment.run(config, folder / "run")
    before = run.code_digest
    run.result_path.unlink()
    told = Told()
    experiment.run(config, folder / "run", told, resume=True)
    assert run.code_digest == before and not any("the code has changed" in line for line in told.lines)
    run.result_path.unlink()
    (folder / "my_drop.py").write_text(DROP + "\n# edited\n")
    experiment.run(config, folder / "run", told, resume=True)
    (warning,) = (line for line in told.lines if line.startswith("Warning: the code has changed since"))
    assert f"{run.folder} began (my_drop.py)" in warning and run.changed_code == ""
    once = run.code_digest
    run.result_path.unlink()
    (folder / "my_drop.py").write_text(DROP)  # as it was
    experiment.run(config, folder / "run", told, resume=True)
    assert any(f"changed since {run.folder} went on (my_drop.py)" in line for line in told.lines)
    assert run.changed_code == "" and len({before, once, run.code_digest}) == 3


class OverlappingPools(torch.nn.Module):
    """A network with a 3x3 pool of stride 2, as many have near their input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, 4), torch.nn.MaxPool2d(3, 2), torch.nn.Flatten())

    def forward(self, x):
        return self.layers(x)


class WarningAsCuda(Reporter):
    """Warns as torch does on CUDA in deterministic mode, whatever the pool."""

    def step(self, *_):
        warnings.warn("max_pool2d_with_indices_backward_cuda has no deterministic implementation", stacklevel=1)


@pytest.mark.parametrize(("backbone", "warned"), [("conv4", 0), (f"{__name__}.OverlappingPools", 2)])
def test_where_pooling_does_not_repeat_itself_deterministic_training_is_warned(backbone, warned, tmp_path):
    config = dataclasses.replace(CONFIG, backbone=backbone, deterministic=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        experiment.run(config, tmp_path / "run", WarningAsCuda())
    assert len([each for each in caught if "max_pool2d" in str(each.message)]) == warned


@pytest.mark.parametrize(
    ("backbone", "meet"),
    [("resnet12", False), ("conv512f", False), ("conv512f:variant=r2d2", True), ("torchvision:resnet18", True)],
)
def test_it_is_known_where_pools_look_at_a_position_twice(backbone, meet):
    assert fewshot.backbones.build(backbone, "none", 32).windows_meet == meet


def test_resume_begins_where_there_is_nothing_to_go_on_with(tmp_path):
    (tmp_path / "new").mkdir()
    flags = [*SMALL, "--epochs", "0", "--head", "simpleshot", "--out", str(tmp_path / "new"), "--resume"]
    assert console.run(train.main, flags) == 0
    assert Run.open(tmp_path / "new").finished


def test_training_begins_with_another_runs_backbone_whatever_its_regularizers(small_run, tmp_path, capsys):
    run = experiment.run(dataclasses.replace(CONFIG, init=str(small_run), epochs=0), tmp_path / "run")
    ours, theirs = fewshot.load(run.folder).backbone, fewshot.load(small_run).backbone
    given = theirs.state_dict()
    assert theirs.regularizers
    for name, tensor in ours.blocks.state_dict(prefix="blocks.").items():
        assert torch.equal(tensor, given[name]), name
    assert len(run.resolved["init"]["weights"]) == 64
    flags = [*SMALL, "--init", str(small_run), "--backbone", "resnet12", "--out", str(tmp_path / "other")]
    assert console.run(train.main, flags) == 2
    assert f"holds weights of another network ({NETWORK})" in one_line_error(capsys)
    assert not (tmp_path / "other").exists()


def test_training_begins_with_no_half_trained_network(small_run, tmp_path, capsys):
    half = shutil.copytree(small_run, tmp_path / "half")
    (half / "result.json").unlink()
    assert console.run(train.main, [*SMALL, "--init", str(half), "--out", str(tmp_path / "run")]) == 2
    said = f"--init {half}: this run is not finished; finish it first, by --out {half} --resume"
    assert said in one_line_error(capsys) and not (tmp_path / "run").exists()


def test_a_regularizer_that_draws_weights_shifts_no_other_part():
    def build(reg):
        return fewshot.model.build("conv4", reg, "r2d2", 32, (0.5,) * 3, (0.25,) * 3, seed=4)

    plain, drawing = build("none"), build("targetdrop:attention=ste")
    drawn = drawing.state_dict()
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in plain.state_dict().items() if "regs" not in name)


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fewshot.model.build("conv4", "targetdrop", "proto", 32, (0.5,) * 3, (0.25,) * 3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("embed", ["joint", "separate"])
def test_a_step_is_plain_pytorchs(tmp_path, embed):
    """Two steps of ours against two written out: Conv-4, ProtoNet, SGD; the same images, none of the loop's code."""
    config = dataclasses.replace(
        CONFIG, backbone="conv4", epochs=1, episodes_per_epoch=4, embed=embed, shots=2, queries=3, lr=0.05,
        schedule="constant",
    )
    setup = experiment.prepare(config)
    weights = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    batches = [setup.regime.batch(step) for step in range(2)]
    run = experiment.run(config, tmp_path / "run")
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    trained = torch.load(run.checkpoint_path, weights_only=True)["model"]

    layers = []
    for inputs in (3, 64, 64, 64):
        conv = torch.nn.Conv2d(inputs, 64, 3, padding=1, bias=False)
        layers += [conv, torch.nn.BatchNorm2d(64), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    network, scale = torch.nn.Sequential(*layers, torch.nn.Flatten()), torch.nn.Parameter(torch.ones(()))
    for block in range(4):
        network[4 * block].weight.data = weights[f"backbone.blocks.{block}.conv.weight"].clone()
    parameters = [*network.parameters(), scale]
    momentum = [torch.zeros_like(p) for p in parameters]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (setup.dataset.mean, setup.dataset.std))
    for step, batch in enumerate(batches):
        images = ((batch - mean) / std).view(2, 5, 5, 3, 32, 32)  # tasks, ways, 2 shots and 3 queries
        if embed == "joint":
            z = network(images.flatten(0, 2)).view(2, 5, 5, -1)
            support, query = z[:, :, :2], z[:, :, 2:]
        else:
            parts = images.split((2, 3), dim=2)
            support, query = (network(x.flatten(0, 2)).view(2, 5, x.shape[2], -1) for x in parts)
        distances = (query[:, :, :, None] - support.mean(2)[:, None, None]).square().sum(4)  # (2, 5 ways, 3, 5 ways)
        logits = -scale * distances / 256
        loss = F.cross_entropy(logits.flatten(0, 2), torch.arange(5).repeat_interleave(3).repeat(2))
        assert losses[step] == pytest.approx(loss.item(), rel=1e-5)
        for p, v, gradient in zip(parameters, momentum, torch.autograd.grad(loss, parameters), strict=True):
            gradient = gradient + 5e-4 * p.data
            v.mul_(0.9).add_(gradient)  # SGD with Nesterov's momentum (Sutskever et al., 2013), as torch documents it
            p.data -= 0.05 * (gradient + 0.9 * v)
    for block in range(4):
        ours = trained[f"backbone.blocks.{block}.conv.weight"]
        assert torch.allclose(ours, network[4 * block].weight, atol=1e-5), f"block {block}"
        variance = trained[f"backbone.blocks.{block}.norm.running_var"]
        assert torch.allclose(variance, network[4 * block + 1].running_var, rtol=1e-4), f"block {block}"
    assert trained["head.scale"].item() == pytest.approx(scale.item(), rel=1e-5)


class ByPlace(Head):
    """A transductive head that cheats: it assumes that queries come class by class, and looks at nothing else."""

    transductive = True

    def solve(self, support, targets, query):
        ways = targets.shape[2]
        answers = torch.arange(ways).repeat_interleave(query.shape[1] // ways)
        return F.one_hot(answers, ways).float().expand(len(query), -1, -1) + 0 * query.sum()


def test_a_transductive_head_cannot_learn_the_order_of_queries():
    config = dataclasses.replace(CONFIG, head=f"{__name__}.ByPlace", queries=15, episodes_per_batch=8)
    setup = experiment.prepare(config)
    torch.manual_seed(0)
    _, accuracy = setup.regime.loss(setup.model.train(), setup.regime.batch(0))
    assert 0.1 < accuracy < 0.3


def test_a_short_run_learns(tmp_path):
    """40 steps on letters must lift an untrained network by ten points."""
    config = dataclasses.replace(CONFIG, epochs=1, episodes_per_epoch=160, episodes_per_batch=4, test_episodes=200)
    trained = experiment.run(config, tmp_path / "trained").rows
    untrained = experiment.run(dataclasses.replace(config, epochs=0), tmp_path / "untrained").rows
    assert all(a["accuracy"] > b["accuracy"] + 0.1 for a, b in zip(trained, untrained, strict=True))


def test_adamw_clipping_and_a_moving_average_train_and_resume_to_the_bit(tmp_path):
    config = dataclasses.replace(
        CONFIG, optimizer="adamw", lr=0.003, clip_norm=0.5, ema=0.8, warmup_epochs=1, epochs=3, checkpoint_seconds=0.001
    )
    whole = experiment.run(config, tmp_path / "whole")

    class Cut(Exception):
        pass

    class Cutting(Reporter):
        def validation(self, epoch, *_):
            if epoch == 2:
                raise Cut

    with pytest.raises(Cut):
        experiment.run(config, tmp_path / "cut", Cutting())
    cut = experiment.run(config, tmp_path / "cut", resume=True)
    assert cut.best_path.read_bytes() == whole.best_path.read_bytes()
    state = torch.load(whole.checkpoint_path, weights_only=True)
    average, last = state["average"]["module.head.scale"], state["model"]["head.scale"]
    assert average != last and average != 1.0
    assert fewshot.load(whole.folder).head.scale.item() != last.item(), "the average is what is kept"


def test_an_older_run_folder_is_read_and_a_damaged_one_named(small_run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(small_run, old)
    values = json.loads((old / "config.json").read_text())
    for name in ("format", "regime", "transform", "init", "optimizer", "clip_norm", "ema", "warmup_epochs", "sha256"):
        del values[name]
    del values["resolved"]["code"]
    (old / "config.json").write_text(json.dumps(values))
    (old / "environment.json").write_text(json.dumps(Run.open(small_run).environment))  # without its digest
    assert Run.open(old).config == Run.open(small_run).config and Run.open(old).code_digest == ""
    del values["lr"]
    (old / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="config.json is damaged: it lacks lr"):
        _ = Run.open(old).config
    (old / "config.json").write_text(json.dumps(values | {"format": 4}))
    with pytest.raises(UserError, match="is of format 4"):
        _ = Run.open(old).config


def test_what_is_left_out_is_completed_as_the_command_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    config = fewshot.configure(reg="dropout", seed=3)
    assert (config.dataset, config.recipe, config.mirror) == ("glyphs", "glyphs", False)
    assert config.data_root == str(tmp_path / "data")
    with pytest.raises(UserError, match=r"unknown field in configure\(...\): 'rag'. Did you mean 'reg'"):
        fewshot.configure(rag="dropout")
    with pytest.raises(UserError, match="complete it by fewshot.configure"):
        fewshot.run(fewshot.TrainConfig(), tmp_path / "run")


def test_a_default_block_that_was_clipped_is_in_the_record():
    config = dataclasses.replace(CONFIG, reg="targetdrop@3,4")
    said = recorded.settled(config, experiment.prepare(config))["regularizers"]
    assert [text.endswith("(default block 3 clipped to the 2x2 map)") for text in said] == [False, True]


def test_the_data_root_is_the_flags_then_the_variables_then_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = (("there", {}, "there"), ("there", {"data_root": "given"}, "given"), ("", {}, "data"))
    for variable, given, expected in cases:
        monkeypatch.setenv("FEWSHOT_DATA", variable)
        assert fewshot.configure(dataset="glyphs", **given).data_root == str(tmp_path / expected)
