"""Evaluation's network, with its batch norms folded, and its pooling: the same to rounding, and nowhere in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewshot
from fewshot import model as models
from fewshot.backbones import Foreign
from fewshot.backbones._pool import halve
from fewshot.core.compute import choose
from fewshot.data import open_dataset
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.evaluation import folding
from fewshot.evaluation.score import score

CPU = choose("cpu", "fp32")


class Twice(nn.Module):
    """Its convolution's output goes to the batch norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.conv(x)
        return (self.norm(x) + x).mean((2, 3))


class Branching(Foreign):
    def __init__(self, image_size: int = 84) -> None:
        super().__init__(image_size, Twice())


def build(backbone: str) -> models.Model:
    """A network whose batch norms have seen something, and have weights of their own."""
    reg = "none" if backbone == BRANCHING else "targetdrop@1"
    model = models.build(backbone, reg, "proto", 32, (0.5,) * 3, (0.3,) * 3)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 2)
        for values in (norm.bias.data, norm.running_mean):
            values.normal_()
    return model


BRANCHING = f"{__name__}.Branching"
NORMS = {"conv4": 4, "conv512f": 4, "resnet12": 16, "torchvision:resnet18": 20}


@pytest.mark.parametrize("backbone", NORMS)
def test_the_same_to_rounding_without_batch_norms(backbone):
    model = build(backbone).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = folding.folded(model, CPU)
    counts = [sum(isinstance(part, nn.BatchNorm2d) for part in each.modules()) for each in (model, folded)]
    assert counts == [NORMS[backbone], 0] and not folded.training
    assert all(part.training for part in model.modules()), "the model itself stays as it is"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        expected, found = model.eval()(images), folded(images)
    assert (expected - found).abs().max() < 1e-5 * expected.abs().max()


def test_what_is_not_the_same_function_is_left_as_it_is():
    model = build(BRANCHING)
    assert folding.folded(model, CPU) is model
    assert folding.folded(conv4 := build("conv4"), choose("cpu", "bf16")) is conv4


def test_predictions_of_ten_thousand_episodes_agree(small_run):
    model = fewshot.load(small_run, device="cpu")
    wanted = [Tasks(EpisodeSampler(open_dataset("glyphs")["test"], Protocol(5, 1, 15), 0), 10_000)]
    (plain,), (fast,) = (score(model, wanted, CPU, fold=fold) for fold in (False, True))
    changed = (plain != fast).any(1).sum()
    assert changed <= 10 and abs(plain.mean() - fast.mean()) < 1e-4 * plain.mean(), changed


def test_a_validation_is_not_folded(small_run, monkeypatch):
    monkeypatch.setattr(folding, "folded", None)
    wanted = [Tasks(EpisodeSampler(open_dataset("glyphs")["val"], Protocol(5, 1, 15), 0), 20)]
    assert score(fewshot.load(small_run, device="cpu"), wanted, CPU)[0].shape == (20, 5)


def test_benchmark_and_evaluation_of_a_run_agree_to_the_bit(small_run):
    model = fewshot.load(small_run, device="cpu")
    dataset = open_dataset("glyphs")
    (found,) = fewshot.benchmark(model, dataset=dataset, shots=1, episodes=500)
    wanted = [Tasks(EpisodeSampler(dataset["test"], Protocol(5, 1, 15), 0), 500)]
    (right,) = score(model, wanted, CPU, fold=True)
    assert np.array_equal(found.accuracies, right.sum(1) / 75)


@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (3, 8, 21, 21), (1, 4, 10, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_is_torch_s_own(shape, dtype):
    x = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(halve(x), F.max_pool2d(x, 2))
        with pytest.raises(RuntimeError, match="too small"):
            halve(x[:, :, :1])
    leaf = torch.randn(shape, requires_grad=True)
    halve(leaf).sum().backward()
    assert leaf.grad is not None and int(leaf.grad.sum()) == halve(leaf).numel()
