"""Which weights a training keeps: the first best, by the first validation, of an average that is up to date."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import pytest
import torch
from settled import CONFIG

from fewshot import experiment
from fewshot.core.errors import UserError
from fewshot.learning import loop
from fewshot.learning.keeper import Keeper
from fewshot.learning.regimes import Validation
from fewshot.learning.regimes.episodic import Episodic
from fewshot.learning.reporter import Reporter


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


def test_negative_figures_select_too_and_what_is_none_stops(tmp_path, monkeypatch):
    """`selected` may be any number: the larger, the better."""
    found = iter([-3.0, -2.0, -2.5, -4.0])
    monkeypatch.setattr(Episodic, "validate", lambda *_: Validation(value := next(found), {"1shot": value}))
    run = experiment.run(dataclasses.replace(CONFIG, epochs=4), tmp_path / "run")
    assert run.environment["best_step"] == run.steps // 2
    monkeypatch.setattr(Episodic, "validate", lambda *_: Validation(float("nan"), {"1shot": 0.5}))
    with pytest.raises(UserError, match="the validation is no longer finite before step 3"):
        experiment.run(CONFIG, tmp_path / "nan")


def test_checkpoints_are_as_far_apart_as_asked(tmp_path, monkeypatch):
    """60 steps, one a second, on a clock of our own."""
    clock, saved, save = SimpleNamespace(now=0.0), [], Keeper.save

    class Ticking(Reporter):
        def step_begins(self, step):
            clock.now = float(step)

    def noted(self, progress):
        saved.append(progress.step)
        save(self, progress)

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(Keeper, "save", noted)
    config = dataclasses.replace(CONFIG, epochs=1, episodes_per_epoch=60, episodes_per_batch=1, checkpoint_seconds=25.0)
    experiment.run(config, tmp_path / "run", Ticking())
    assert saved == [30, 60, 60], "the last one is training's end"


def test_an_untrained_network_is_validated_once(tmp_path):
    run = experiment.run(dataclasses.replace(CONFIG, epochs=0), tmp_path / "run")
    run.result_path.unlink()
    experiment.run(run.config, run.folder, resume=True)
    assert run.finished and ["validation" in row for row in run.metrics()] == [True]


def test_the_log_is_on_the_disk_before_the_checkpoint_that_counts_on_it(tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync

    def watched(handle):
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    experiment.run(CONFIG, tmp_path / "run")
    first = next(i for i, name in enumerate(flushed) if name.startswith(".checkpoint.pt-"))
    assert "metrics.jsonl" in flushed[:first]
