"""Episodic training: the loss of a step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from commands import SMALL, one_line_error

from fewshot import experiment, train
from fewshot.config import TrainConfig
from fewshot.core import console

CONFIG = TrainConfig(dataset="glyphs", epochs=1, episodes_per_batch=2, queries=3, device="cpu", precision="fp32")


def test_smoothing_of_an_eighth_is_metaoptnets_of_a_tenth_at_five_ways():
    """Its code: 1 - eps of the target is the true class's, eps is shared by the other four."""
    losses, logits = {}, []
    for regime in ("episodic", "episodic:smoothing=0.125"):
        setup = experiment.prepare(dataclasses.replace(CONFIG, regime=regime))
        model = setup.model.train()
        model.head.register_forward_hook(lambda *call: logits.append(call[-1].detach()))
        losses[regime], _ = setup.regime.loss(model, setup.regime.batch(0))
    plain, smoothed = losses.values()
    truth = torch.nn.functional.one_hot(torch.arange(5).repeat_interleave(3), 5)
    log_p = logits[0].log_softmax(2)
    assert torch.equal(logits[0], logits[1])
    assert plain.item() == pytest.approx(-(truth * log_p).sum(2).mean().item(), rel=1e-5)
    targets = 0.9 * truth + 0.1 / 4 * (1 - truth)
    assert smoothed.item() == pytest.approx(-(targets * log_p).sum(2).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--regime", "episodic:smoothing=1"], "give 0 or more, and less than 1"),
        (["--regime", "episodic:smoothing=0.1", "--head", "relation"], "head relation has a loss of its own"),
    ],
)
def test_smoothing_that_cannot_be_is_named(tmp_path, capsys, flags, complaint):
    assert console.run(train.main, [*SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    assert complaint in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


def test_a_network_is_trained_through_its_transform():
    """The loss of embeddings of length 1, written out."""
    config = dataclasses.replace(CONFIG, transform="l2", head="proto:variant=snell")
    setup = experiment.prepare(config)
    model, batch = setup.model.train(), setup.regime.batch(0)
    loss, _ = setup.regime.loss(model, batch)
    z = F.normalize(model(batch), dim=1).view(2, 5, 1 + 3, -1)  # tasks, ways, support before queries
    distances = (z[:, :, 1:, None] - z[:, :, 0][:, None, None]).square().sum(4)
    truth = torch.arange(5).repeat_interleave(3).repeat(2)
    assert loss.item() == pytest.approx(F.cross_entropy(-distances.flatten(0, 2), truth).item(), rel=1e-4)
