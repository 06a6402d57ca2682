"""Which weights a training keeps: the first best, by the first validation, of an average that is up to date."""

from __future__ import annotations

import dataclasses

import torch
from settled import CONFIG

from fewshot import experiment
from fewshot.learning.regimes import Validation
from fewshot.learning.regimes.episodic import Episodic


def test_of_equal_validations_the_first_is_kept(tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.6, 0.6, 0.3])
    monkeypatch.setattr(Episodic, "validate", lambda *_: Validation(found := next(accuracies), {"1shot": found}))
    run = experiment.run(dataclasses.replace(CONFIG, epochs=4), tmp_path / "run")
    assert run.environment["best_step"] == run.steps // 2


def test_the_first_of_several_validations_selects():
    """`--val-shots`, whatever the tests are."""
    setup = experiment.prepare(dataclasses.replace(CONFIG, val_shots=2, test_shots=(1, 5)))
    found = setup.regime.validate(setup.model)
    assert list(found.figures) == ["2shot", "1shot", "5shot"] and len(set(found.figures.values())) == 3
    assert found.selected == found.figures["2shot"]


def test_the_moving_average_has_every_step_in_it(tmp_path, monkeypatch):
    weights, step = [], torch.optim.SGD.step

    def watched(self, *args, **kwargs):
        found = step(self, *args, **kwargs)
        weights.append(self.param_groups[0]["params"][0].detach().clone())
        return found

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    run = experiment.run(dataclasses.replace(CONFIG, epochs=1, ema=0.8), tmp_path / "run")
    average, *later = weights
    for each in later:
        average = 0.8 * average + 0.2 * each
    name = next(name for name, _ in experiment.prepare(CONFIG).model.named_parameters())
    state = torch.load(run.checkpoint_path, weights_only=True)["average"]
    assert len(later) == 2 and torch.allclose(state[f"module.{name}"], average, atol=1e-6)
