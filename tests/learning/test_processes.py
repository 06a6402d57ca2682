"""Several processes train one model: as one process that does their shares in turn; they stop, fail and go on together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command, one_line_error
from crews import Nursery
from torture_cases import kills

from fewshot import experiment, train
from fewshot.config import TrainConfig
from fewshot.core import console, pulse
from fewshot.core.compute import Compute
from fewshot.core.crew import Crew
from fewshot.core.pulse import Pulse
from fewshot.core.seeding import derive, generator_for
from fewshot.evaluation.records import read
from fewshot.evaluation.score import score
from fewshot.learning import optimizer, regimes
from fewshot.model import load_own
from fewshot.runs import Run

CPU = Compute(torch.device("cpu"), "fp32")
STEP = {"epochs": 2, "episodes_per_epoch": 6, "episodes_per_batch": 3}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    made = Nursery(tmp_path_factory.mktemp("crews"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data root with a tiny data set."""
    kills.tiny(root := tmp_path_factory.mktemp("tiny"))
    return root


def settled(data: Path, **changes) -> TrainConfig:
    return TrainConfig(**kills.SHORT | STEP | {"data_root": str(data), "recipe": "none"} | changes)


def flags(config: TrainConfig) -> list[str]:
    """The command line of a configuration."""
    given: list[str] = []
    for name, value in vars(config).items():
        if isinstance(value, bool):
            given.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        elif value not in ("", ()):
            given += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value])]
    return given


def parts(batch, items: int, size: int) -> list[tuple[float, object]]:
    """A whole batch cut into the processes' shares, each with its weight: the first ones get the odd items."""
    lengths = [items // size + (rank < items % size) for rank in range(size)]
    cut = []
    for rank, length in enumerate(lengths):
        if isinstance(batch, torch.Tensor):
            each = len(batch) // items
            share = batch[sum(lengths[:rank]) * each :][: length * each]
        else:
            where = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
            share = type(batch)(batch.images[where], batch.labels[where], batch.others[where], batch.share)
        cut.append((length / items, share))
    return cut


def in_turn(config: TrainConfig, size: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """What so many processes must come to, by one that does their shares one after the other; and the losses."""
    made = experiment.prepare(config)
    model, regime, plan = made.model, made.regime, experiment.plan(config, made.regime)
    stepper = optimizer.build(config.optimizer, model.parameters(), config.lr, config.momentum, config.weight_decay)
    moving = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    counts = {name: buffer for name, buffer in model.named_buffers() if "num_batches" in name}
    losses = []
    for step in range(plan.steps):
        for group in stepper.param_groups:
            group["lr"] = plan.schedule.rate(step)
        before = {name: buffer.clone() for name, buffer in (moving | counts).items()}
        after = {name: torch.zeros_like(buffer) for name, buffer in moving.items()}
        stepper.zero_grad()
        losses.append(0.0)
        for rank, (weight, share) in enumerate(parts(regime.batch(step), plan.pace.per_step, size)):
            for name, buffer in (moving | counts).items():
                buffer.copy_(before[name])
            torch.manual_seed(derive(config.seed, step, f"masks of process {rank}" if rank else "masks"))
            model.train()
            model.backbone.begin_step(step / plan.steps, generator_for(config.seed, step, "regularizers"))
            loss, _ = regime.loss(model, share)
            (weight * loss).backward()
            losses[-1] += weight * loss.item()
            for name, buffer in moving.items():
                after[name] += weight * buffer
        for name, buffer in moving.items():
            buffer.copy_(after[name])
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        stepper.step()
    return model.state_dict(), losses


def last(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


@pytest.mark.parametrize(
    "size, changes",
    [
        (2, {"reg": "dropblock+camdrop", "embed": "separate", "clip_norm": 0.5}),
        (3, {"regime": "supervised:batch=8,mixup=0.5,rotation=true", "epochs": 1, "reg": "dropout@1,2"}),
    ],
    ids=["episodic", "supervised"],
)
def test_processes_are_one_that_does_their_shares_in_turn(size, changes, data, nursery, tmp_path):
    config = settled(data, **changes)
    done = nursery.run(size, *flags(config), "--out", tmp_path / "run")
    assert done.statuses == [0] * size and done.printed("err") == []
    assert all(done.by(rank, "out") == [] for rank in range(1, size)), "the first one prints"
    run = Run.open(tmp_path / "run")
    expected, losses = in_turn(config, size)
    found = last(run.folder)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name
    assert [row["loss"] for row in run.metrics() if "loss" in row] == pytest.approx(losses, rel=1e-5)
    assert run.sittings[0]["processes"] == size and run.processes == str(size)
    # The test is of the same bits as in one process: images are embedded in the same batches, by whomever.
    tasks, base = experiment.prepare(config).test, experiment.prepare(config).dataset["train"]
    for row, right in zip(run.rows, score(load_own(run, CPU), tasks, CPU, base, fold=True), strict=True):
        assert np.array_equal(read(run, row).episodes.accuracies, (right.sum(1) / 6).astype(np.float32))


@pytest.mark.parametrize("regime", ["episodic", "supervised:batch=8", "supervised:batch=8,cutmix=1"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(regime, size, data):
    config = settled(data, regime=regime)
    made = experiment.prepare(config)
    shares = []
    for rank in range(size):
        compute = Compute(CPU.device, "fp32", Crew(rank, size))
        its = regimes.build(regime, config, made.dataset, made.validation, compute)
        shares.append(its.batch(1))
    for (_, expected), share in zip(parts(made.regime.batch(1), 3 if regime == "episodic" else 8, size), shares, strict=True):
        for one, other in zip(*(vars(each).values() if hasattr(each, "share") else [each] for each in (expected, share)), strict=True):
            assert one == other if isinstance(one, float) else torch.allclose(one, other, atol=1e-6)
