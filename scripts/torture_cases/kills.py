"""Runs that are killed, at any moment and within each step of a save, and must go on to the same bits.

The parent process has imported everything; each run is a fork of it, so that a trial takes a fraction of a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fewshot import catalogue, evaluate, experiment, heads
from fewshot.config import TrainConfig
from fewshot.core import console, sources
from fewshot.core.crew import member
from fewshot.core.errors import UserError
from fewshot.data import dataset_json
from fewshot.data.store import write_array
from fewshot.evaluation.records import read
from fewshot.runs import Run, provenance

CLASSES, IMAGES, SIDE = 4, 6, 32
SHORT = {
    "dataset": "tiny", "ways": 2, "queries": 1, "test_ways": 3, "test_queries": 2, "val_episodes": 5,
    "test_episodes": 20, "epochs": 3, "episodes_per_epoch": 7, "episodes_per_batch": 1, "crop_padding": 2,
    "threads": 1, "device": "cpu", "precision": "fp32", "checkpoint_seconds": 1e-9, "test_shots": (1, 2),
}  # fmt: skip
# Every regularizer whose masks depend on the step, that has weights of its own, or that acts elsewhere; and every other
# part of a step that has a state.
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {}, "dropblock": {"reg": "dropblock:ramp=1.0"}, "dropblock, metaopt": {"reg": "dropblock:variant=metaopt"},
    "targetdrop": {"reg": "targetdrop"}, "targetdrop, trained": {"reg": "targetdrop:attention=ste"},
    "focuseddropout": {"reg": "focuseddropout"}, "attentiondrop": {"reg": "attentiondrop"},
    "camdrop": {"reg": "camdrop"}, "cutout, dropout": {"reg": "cutout+dropout@1,2"},
    "spatialdropout": {"reg": "spatialdropout"},
    "autoaugment": {"reg": "autoaugment"}, "adamw": {"optimizer": "adamw", "lr": 0.003},
    "moving average": {"ema": 0.8}, "warm-up, clipping": {"warmup_epochs": 1, "clip_norm": 0.5},
    "r2d2": {"head": "r2d2"}, "separate, l2": {"embed": "separate", "transform": "l2"},
    "untrained": {"epochs": 0},
    "resnet12, droppath": {"backbone": "resnet12", "reg": "droppath", "epochs": 1},
    "resnet12, stochasticdepth": {"backbone": "resnet12", "reg": "stochasticdepth", "epochs": 1},
}  # fmt: skip
# Trained by two processes, of which one is killed. The batch does not divide evenly.
TOGETHER: dict[str, dict[str, Any]] = {
    "two processes": {"reg": "dropblock+camdrop", "episodes_per_batch": 3, "ema": 0.8},
    "two processes, supervised": {"regime": "supervised:batch=5,mixup=0.2", "reg": "focuseddropout"},
}
_PATIENCE = 30.0  # seconds that a process may take to end after losing the other
_TIMED = ("train_seconds", "metrics_bytes", "metrics_sha256")  # metrics have times in them
_CALLS = ((os, "replace"), (os, "fsync"), (os, "chmod"), (os, "open"), (os, "unlink"), (os, "ftruncate"))


def variants() -> dict[str, dict[str, Any]]:
    """Also every regime but `episodic`, and every head that can be trained with."""
    regimes = {name: {"regime": name, "reg": "dropblock"} for name in catalogue.names("regimes") if name != "episodic"}
    others: dict[str, dict[str, Any]] = {}
    for name in catalogue.names("heads"):
        with contextlib.suppress(UserError):
            heads.check_trainable(heads.build(name))
            others[name] = {"head": name}
    return VARIANTS | regimes | others | TOGETHER


def tiny(root: Path) -> None:
    """A prepared data set of a few noisy images."""
    folder = root / "tiny"
    folder.mkdir(parents=True)
    noise, entries = np.random.default_rng(0), {}
    for split in ("train", "val", "test"):
        pixels = noise.integers(0, 256, (CLASSES, IMAGES, SIDE, SIDE, 3), np.uint8)
        pixels[..., :16, :, :] = (np.arange(CLASSES) * 60).astype(np.uint8)[:, None, None, None, None]
        images = pixels.reshape(-1, SIDE, SIDE, 3)
        entries[split] = {
            "classes": [f"{split}{n}" for n in range(CLASSES)], "counts": [IMAGES] * CLASSES, "shape": images.shape,
            "sha256": write_array(folder / f"{split}.npy", images.shape, [images]),
        }  # fmt: skip
    dataset_json.write(folder, "tiny", entries, "noise", [], {}, ((0.5,) * 3, (0.25,) * 3))


def config(variant: str, root: Path, seed: int) -> TrainConfig:
    """The short run of a variant."""
    return TrainConfig(**SHORT | variants()[variant] | {"data_root": str(root), "seed": seed})


def train(settled: TrainConfig, folder: Path) -> Callable[[], object]:
    """Starts a run, or goes on with it, in all processes that call it."""

    def work() -> None:
        with member() as crew:
            crew.join()
            experiment.run(settled, folder, resume=True, crew=crew)

    return work


def test_again(folder: Path) -> Callable[[], object]:
    """An evaluation that replaces rows, and adds some."""
    flags = [str(folder), "--ways", "3", "--queries", "2", "--shots", "1", "3", "--episodes", "25", "--replace",
             "--threads", "1", "--device", "cpu", "--precision", "fp32"]  # fmt: skip

    def work() -> None:
        assert console.run(evaluate.main, flags) == 0

    return work


def forked(
    work: Callable[[], object], die_at: int = 0, after: bool = False, seconds: float | None = None,
    store: Store | None = None,
) -> int:  # fmt: skip
    """Do it in a child; returns its exit status, negative if a signal ended it.

    die_at: at which of the calls that make up a save it kills itself, from 1 on; `after`: after the call, not before
    it; a write is always half done. seconds: after which it is killed from outside. `store`: do it in two children, of
    which the first saves, and either may be killed from outside; the status is SIGKILL's if it ended one.
    """
    environments = [store.environment(rank, 2) for rank in range(2)] if store else [{}]
    children = []
    for rank, environment in enumerate(environments):
        if child := os.fork():
            children.append(child)
            continue
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        if store and (die_at or seconds is not None):  # silence the survivor, which reports the loss
            os.dup2(1, 2)
        try:
            os.environ |= environment
            if die_at and rank == 0:
                _mine(die_at, after)
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(children[int(seconds * 1e6) % len(children)], signal.SIGKILL)
    statuses = _ended(children)
    return -signal.SIGKILL if -signal.SIGKILL in statuses else max(statuses, key=abs)


def _ended(children: list[int]) -> list[int]:
    """Exit statuses. If one has failed, the others are told, as torchrun does."""
    statuses: dict[int, int] = {}
    told = 0.0
    while len(statuses) < len(children):
        for child in children:
            if child in statuses:
                continue
            if told and time.monotonic() - told > _PATIENCE:
                raise RuntimeError("a process goes on without the other")
            found, status = os.waitpid(child, os.WNOHANG if len(children) > 1 else 0)
            if found:
                statuses[child] = os.waitstatus_to_exitcode(status)
            elif any(statuses.values()) and not told:
                told = time.monotonic()
                os.kill(child, signal.SIGTERM)
        time.sleep(0.002 * (len(children) > 1))
    return [statuses[child] for child in children]


class Store:
    """The store by which processes meet, in a process of its own, as with torchrun."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.crews, parent = 0, os.getpid()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(1)  # its reader must see the end of the parent
            store = dist.TCPStore("127.0.0.1", self.port, is_master=True, wait_for_workers=False)
            while os.getppid() == parent:
                time.sleep(0.5)
            del store
            os._exit(0)

    def environment(self, rank: int, size: int) -> dict[str, str]:
        """What torchrun tells a process. Each crew begins with rank 0."""
        self.crews += rank == 0
        return {
            "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(self.crews),
        }  # fmt: skip

    def close(self) -> None:
        """End its process."""
        os.kill(self._keeper, signal.SIGKILL)
        os.waitpid(self._keeper, 0)


def _mine(die_at: int, after: bool) -> None:
    """Let one of the calls that make up a save be this process's last."""
    left = die_at

    def step(call: Callable[[], Any]) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call()
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    for module, name in _CALLS:
        original = getattr(module, name)
        setattr(module, name, lambda *args, f=original, **more: step(lambda: f(*args, **more)))
    fdopen = os.fdopen

    def torn(handle: int, mode: str = "r", *args: Any, **more: Any) -> Any:
        nonlocal left
        file = fdopen(handle, mode, *args, **more)
        if "w" not in mode and "a" not in mode:
            return file
        left -= 1
        if left == 0:  # half of the first write
            return _Half(file)
        return file

    os.fdopen = torn


class _Half(io.RawIOBase):
    """A file whose first write is its last."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        getattr(self.file, "raw", self.file).write(bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(bytes(part) for part in parts))


def digest(folder: Path) -> str:
    """Of all that must come out the same: weights, checkpoint, metrics, rows, records. Times are left out."""
    run = Run.open(folder)
    state = torch.load(run.checkpoint_path, weights_only=True)
    state["progress"] = {k: v for k, v in state["progress"].items() if k not in _TIMED}
    del state["run"]
    summary = hashlib.sha256(run.best_path.read_bytes())
    _feed(summary, state)
    for row in run.metrics():
        _feed(summary, {k: v for k, v in row.items() if k not in ("images_per_second", "seconds")})
    for row in sorted(run.rows, key=lambda row: (row["shots"], row["episodes"])):
        read(run, row)
        _feed(summary, {k: v for k, v in row.items() if not k.endswith("_file") and k != "evaluated_by"})
    _feed(summary, run.environment["best_step"])
    return summary.hexdigest()


def _feed(summary: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        summary.update(str(value.dtype).encode() + value.numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            summary.update(str(key).encode())
            _feed(summary, value[key])
    elif isinstance(value, (list, tuple)):
        for each in value:
            _feed(summary, each)
    else:
        summary.update(json.dumps(value, sort_keys=True, default=str).encode())


def left_behind(folder: Path) -> list[str]:
    """Hidden files in a finished run folder: there should be none."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def ask_once() -> None:
    """Find the commit, and what our source files and torch import, once: it takes longer than a child's training."""
    torch.optim.SGD([torch.zeros(1)], 0.1)  # the first one imports a third of torch
    commit = provenance._commit()
    provenance._commit = lambda: commit
    imports = sources._imports
    known = {path: tuple(imports(path, sources.PACKAGE.parent)) for path in sources.PACKAGE.rglob("*.py")}
    sources._imports = lambda path, root: known[path] if path in known else imports(path, root)


class Kills:
    """Trials of killing, one after the other; `kills`, `differences` and the rest count."""

    def __init__(self, work: Path) -> None:
        self.work, self.data = work, work / "data"
        tiny(self.data)
        ask_once()
        self.reference: dict[str, tuple[str, float, str]] = {}
        self.kills = self.at_random = self.in_saves = self.runs = self.differences = self.failures = self.left = 0
        self.examples: list[str] = []
        self._meets: Store | None = None

    def trial(self, number: int) -> None:
        """A run that is killed up to four times, finished, and compared; then its evaluation likewise."""
        dice = random.Random(number)
        names = list(variants())
        round, place = divmod(number, len(names))
        name = names[place]
        if name.startswith("resnet12") and round % 8:  # whose checkpoints of 100 MB take as long as ten others
            name = names[round % len(names)]
        settled = config(name, self.data, seed=0)
        expected, seconds, tested = self._undisturbed(name, settled)
        folder = self.work / "killed"
        for work, wanted, span, store in (
            (train(settled, folder), expected, seconds, self._store(name)),
            (test_again(folder), tested, 0.3 * seconds, None),
        ):  # fmt: skip
            for _ in range(dice.randint(1, 4)):
                if dice.random() < 0.5:
                    status = forked(work, seconds=dice.uniform(0.0, span), store=store)
                    self.at_random += status == -signal.SIGKILL
                else:
                    status = forked(
                        work, die_at=int(2 ** dice.uniform(0, 9)), after=dice.random() < 0.5, store=store
                    )
                    self.in_saves += status == -signal.SIGKILL
                self.kills += status == -signal.SIGKILL
                if status not in (0, -signal.SIGKILL):
                    self._failed(name, number, f"status {status}")
            status = forked(work, store=store)
            if status:
                self._failed(name, number, f"status {status} of the last sitting")
                break
            found = digest(folder)
            self.left += bool(left_behind(folder))
            if found != wanted:
                self.differences += 1
                self.examples.append(f"trial {number} ({name}): other bits")
        self.runs += 1
        shutil.rmtree(folder, ignore_errors=True)
        for each in self.work.glob(".new-*"):
            shutil.rmtree(each)

    def _store(self, name: str) -> Store | None:
        """Of a variant that two processes train; None for the others."""
        if name in TOGETHER and self._meets is None:
            self._meets = Store()
        return self._meets if name in TOGETHER else None

    def _failed(self, name: str, number: int, why: str) -> None:
        self.failures += 1
        self.examples.append(f"trial {number} ({name}): {why}")

    def _undisturbed(self, name: str, settled: TrainConfig) -> tuple[str, float, str]:
        """Digest and seconds of the undisturbed run, and the digest after its evaluation."""
        if name not in self.reference:
            folder = self.work / "whole"
            began = time.perf_counter()
            assert forked(train(settled, folder), store=self._store(name)) == 0, name
            seconds = time.perf_counter() - began
            trained = digest(folder)
            assert forked(test_again(folder)) == 0, name
            self.reference[name] = trained, seconds, digest(folder)
            shutil.rmtree(folder)
        return self.reference[name]
