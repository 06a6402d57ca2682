"""Several processes training a model equal one that does their shares in turn. They stop, fail and resume together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import one_line_error
from crews import Nursery
from torture_cases import kills

from fewshot import backbones, experiment, train
from fewshot.config import TrainConfig
from fewshot.core import console, crew, pulse
from fewshot.core.compute import Compute
from fewshot.core.crew import Crew
from fewshot.core.errors import UserError
from fewshot.core.launch import launch
from fewshot.core.pulse import Pulse
from fewshot.core.seeding import derive, generator_for
from fewshot.evaluation.records import read
from fewshot.evaluation.score import score
from fewshot.experiment import setup
from fewshot.learning import optimizer, regimes, resuming
from fewshot.learning.keeper import Keeper, Parts
from fewshot.model import load_own
from fewshot.reports.boards.leaderboard import experiment_of
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
    """What `size` processes must reach, by one that does their shares one after the other; and the losses."""
    made = experiment.prepare(config)
    model, regime, plan = made.model, made.regime, setup.plan(config, made.regime)
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
    # The test gives the same bits as in one process: images are embedded in the same batches, whoever does it.
    tasks, base = experiment.prepare(config).test, experiment.prepare(config).dataset["train"]
    for row, right in zip(run.rows, score(load_own(run, CPU), tasks, CPU, base, fold=True), strict=True):
        assert np.array_equal(read(run, row).episodes.accuracies, (right.sum(1) / 6).astype(np.float32))


@pytest.mark.parametrize("regime", ["episodic", "supervised:batch=8", "supervised:batch=8,cutmix=1"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(regime, size, data):
    config = settled(data, regime=regime)
    made = experiment.prepare(config)
    items = made.regime.pace(config).per_step
    for rank, (_, expected) in enumerate(parts(made.regime.batch(1), items, size)):
        where = Compute(CPU.device, "fp32", Crew(rank, size))
        found = regimes.build(regime, config, made.dataset, made.validation, where).batch(1)
        if regime == "episodic":
            assert torch.allclose(found, expected, atol=1e-6)
        else:
            assert torch.allclose(found.images, expected.images, atol=1e-6) and found.share == expected.share
            assert torch.equal(found.labels, expected.labels) and torch.equal(found.others, expected.others)


def state(folder: Path) -> dict:
    """All that a step changes, flat."""
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)
    momentum = {f"momentum {n}": each["momentum_buffer"] for n, each in kept["optimizer"]["state"].items()}
    return kept["model"] | momentum


def test_a_signal_to_one_stops_all_and_they_go_on_to_the_same_bits(data, nursery, tmp_path, capsys):
    long = {"epochs": 10, "val_every": 10, "reg": "focuseddropout+dropblock", "ema": 0.9}
    name = "crews.Signalled"
    whole = nursery.run(2, *flags(settled(data, regime=name, **long)), "--out", tmp_path / "whole")
    config = settled(data, regime=f"{name}:at=12", **long)
    cut = nursery.run(2, *flags(config), "--out", tmp_path / "cut")
    assert whole.statuses == [0, 0] and cut.statuses == [130, 130]
    (line,) = cut.printed("err")
    assert line == f"interrupted at step 13, checkpoint saved; go on with --out {tmp_path / 'cut'} --resume"
    again = ["--out", str(tmp_path / "cut"), "--resume"]
    assert console.run(train.main, again) == console.USER_ERROR
    assert "was last trained in 2 processes, and here it would go on in one process: start 2" in one_line_error(capsys)
    shutil.copytree(tmp_path / "cut", tmp_path / "other")

    assert nursery.run(2, *again).statuses == [0, 0]
    ours, theirs = state(tmp_path / "cut"), state(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    best = [(tmp_path / name / "best.safetensors").read_bytes() for name in ("cut", "whole")]
    assert best[0] == best[1]

    elsewhere = nursery.run(3, "--out", tmp_path / "other", "--resume", "--elsewhere")
    assert elsewhere.statuses == [0, 0, 0] and elsewhere.printed("err") == []
    assert any("goes on with processes 3, after 2: the run records it" in line for line in elsewhere.by(0, "out"))
    other = Run.open(tmp_path / "other")
    assert other.finished and experiment_of(other)["processes"] == other.processes == "2+3"


def test_one_that_is_killed_ends_the_others_in_a_line(data, nursery, tmp_path):
    config = settled(data, regime="crews.Signalled:at=3,rank=0,number=9")
    done = nursery.run(3, *flags(config), "--out", tmp_path / "run")
    assert done.statuses == [-signal.SIGKILL, 1, 1] and done.seconds < 30
    (line,) = done.printed("err")
    assert line.startswith("error: one of the 3 processes has ended, and the others with it") and "--resume" in line


@pytest.mark.parametrize(
    "changes, more, expected",
    [
        ({"lr": 1e30}, [], "the loss is no longer finite before step 2, at the learning rate"),
        ({"reg": "targetdop"}, [], "Did you mean 'targetdrop'?"),
        ({"episodes_per_batch": 1}, [], "a step has 1 items (episodes, or images) to share, and there are 2 processes"),
        ({"regime": "supervised:batch=3"}, [], "give at least 4 images; batch norm needs two in each process"),
        ({"sync_bn": True}, [], "--sync-bn is for CUDA devices"),
        ({"device": "cuda:0"}, [], "of several processes each takes a device of its own"),
        ({}, ["--processes", "3"], "torchrun has started 2 already"),
        ({}, ["--no-such-flag"], "unrecognized arguments"),
    ],
)
def test_what_stops_all_is_said_once(changes, more, expected, data, nursery, tmp_path):
    done = nursery.run(2, *flags(settled(data, **changes)), *more, "--out", tmp_path / "run")
    (line,) = done.printed("err")
    assert line.startswith("error: ") and expected in line and done.statuses == [2, 2]


def test_torchrun(data, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fewshot.train",
         *flags(settled(data, epochs=1)), "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("Run folder:") == 1
    assert Run.open(tmp_path / "run").processes == "2"


PROBE = """
import os, pathlib, signal, sys, time
own = pathlib.Path(sys.argv[1] + os.environ["RANK"])
own.write_text(os.environ["WORLD_SIZE"] + os.environ["OMP_NUM_THREADS"])
own.rename(pathlib.Path(sys.argv[1], os.environ["RANK"]))  # so that it is seen whole
while len(os.listdir(sys.argv[1])) < 3:  # both are there
    time.sleep(0.01)
if sys.argv[2] == "ends" or os.environ["RANK"] == "0":
    time.sleep(30 * (sys.argv[2] == "waits"))
    sys.exit(5 * (sys.argv[2] == "fails"))
os.kill(os.getppid(), signal.SIGTERM) if sys.argv[2] == "waits" else time.sleep(30)
"""


@pytest.mark.parametrize("what, status", [("ends", 0), ("fails", 5), ("waits", 130)])
def test_our_own_start_gives_the_status_and_is_silent(what, status, tmp_path, monkeypatch, capfd):
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = signal.getsignal(signal.SIGTERM)
    assert launch("probe", [str(tmp_path), what], 2) == status
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["27", "27"]
    assert capfd.readouterr() == ("", "") and signal.getsignal(signal.SIGTERM) == before


def test_train_starts_its_processes(monkeypatch):
    started = []
    monkeypatch.setattr(train, "launch", lambda *given: started.append(given) or 7)
    given = ["--dataset", "glyphs", "--processes", "2"]
    with pytest.raises(SystemExit, match="7"):
        console.run(train.main, given)
    assert started == [("fewshot.train", given, 2)]


def test_synchronised_batch_norm_is_for_several(data, monkeypatch):
    """On a pretend GPU. A process that continues alone what several began is allowed to."""
    monkeypatch.setattr(resuming, "choose", lambda *_: Compute(torch.device("cuda", 0), "fp32"))
    with pytest.raises(UserError, match="--sync-bn is for several processes, and there is one: leave it out"):
        experiment.prepare(settled(data, sync_bn=True))


def test_processes_whose_moving_averages_differ_are_noticed():
    told = []

    class Other(Crew):
        def tell(self, find):
            told.append(find())
            return told[0]

    model = torch.nn.Linear(2, 2)
    parts = Parts(model, None, optimizer.MovingAverage(model, 0.9))
    keeper = Keeper(None, parts, Other(1, 2))
    keeper.check_same()
    parts.average.module.weight.data[0, 0] += 1
    with pytest.raises(UserError, match="process 1 has other weights than the first one"):
        keeper.check_same()


def test_synchronised_batch_norm_replaces_what_it_can_and_refuses_the_rest():
    plain = backbones.build("conv4", "targetdrop", 32)
    names = set(plain.state_dict())
    backbones.sync_batch_norm(plain, None)
    norms = [type(each).__name__ for each in plain.modules() if "Norm" in type(each).__name__]
    assert norms == ["SyncBatchNorm"] * 4 and set(plain.state_dict()) == names
    with pytest.raises(UserError, match=r"--sync-bn: blocks.0.norm carries a regularizer, and cannot be replaced"):
        backbones.sync_batch_norm(backbones.build("conv4", "dropblock@blocks.0.norm", 32), None)


class Store(dict):
    """Adds up numbers, as torch.distributed's do."""

    def add(self, key, amount):
        self[key] = self.get(key, 0) + amount
        return self[key]


def test_who_ends_waits_for_no_store_that_is_gone(monkeypatch):
    class Dead:
        def compare_set(self, *_):
            threading.Event().wait()

    monkeypatch.setattr(crew, "_ANSWER", 0.1)
    alone = Crew(1, 2)
    alone._store = Dead()
    assert alone._first_to_end(1) == (True, 1)


def test_who_fails_is_missed(monkeypatch):
    """Only a process that has done all takes leave: one that waits for a device learns of a failure only by silence."""
    monkeypatch.setattr(pulse, "BEAT", 0.01)
    store, heard = Store(), threading.Event()
    failing = Pulse(store, 1, 2, lambda *_: None)
    failing.stop()
    waiting = Pulse(store, 0, 2, lambda rank, seconds: heard.set())
    assert heard.wait(10)
    waiting.leave()


def test_silence_is_noticed_and_leave_is_not(monkeypatch):
    monkeypatch.setattr(pulse, "BEAT", 0.01)
    for last_word, silent in ((None, [1]), ("pulse/1", [])):
        heard, store = threading.Event(), Store()
        if last_word:
            store.add(last_word, pulse._LEFT)
        called = []
        beating = Pulse(store, 0, 2, lambda rank, seconds: (called.append(rank), heard.set()))  # noqa: B023
        heard.wait(0.3 if last_word else 10)
        beating.leave()
        assert called[:1] == silent and store["pulse/0"] >= pulse._LEFT


def test_the_silence_of_the_store_is_the_first_ones(monkeypatch):
    class Gone:
        def add(self, key, amount):
            raise RuntimeError("connection reset")

    monkeypatch.setattr(pulse, "BEAT", 0.01)
    called = []
    heard = threading.Event()
    beating = Pulse(Gone(), 2, 4, lambda rank, seconds: (called.append(rank), heard.set()))
    heard.wait(10)
    beating.leave()
    assert called[:1] == [0]


@pytest.mark.parametrize("size", [2, 3])
def test_randaugment_changes_an_image_alike_in_whichever_process(size, data):
    config = settled(data, regime="supervised:batch=8,randaugment=2", jitter=0.0)
    made, shares = experiment.prepare(config), []
    for rank in range(size):
        where = Compute(CPU.device, "fp32", Crew(rank, size))
        shares.append(regimes.build(config.regime, config, made.dataset, made.validation, where).batch(1).images)
    assert torch.equal(torch.cat(shares), made.regime.batch(1).images)
