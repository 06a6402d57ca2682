"""The training loop. It knows steps, not what a step is: that is the regime's."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from fewshot.core.compute import keep_heap, tidy_heap
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.core.seeding import derive, generator_for
from fewshot.learning import checkpoint
from fewshot.learning.checkpoint import Progress
from fewshot.learning.interrupt import Interrupt
from fewshot.learning.optimizer import check_state, moving_average
from fewshot.learning.regimes import Regime
from fewshot.learning.reporter import Reporter
from fewshot.learning.schedule import Schedule
from fewshot.model import Model
from fewshot.runs import Run

LOG_EVERY = 10  # steps between looks at the losses: each look waits for the device


@dataclass(frozen=True)
class Plan:
    """How long, and by which rules."""

    seed: int
    schedule: Schedule
    weight_decay: float
    pace: Pace
    checkpoint_seconds: float
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0: any."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is then what is validated and kept; 0: none."""
    compile: bool = False

    @property
    def steps(self) -> int:
        return self.pace.steps


def train(
    run: Run, model: Model, regime: Regime, optimizer: torch.optim.Optimizer, plan: Plan, reporter: Reporter
) -> Progress:
    """Train `model` (already on its device), from the run's checkpoint if it has one.

    Leaves metrics, checkpoint and the best validation's weights in the run folder. SIGINT, SIGTERM and SIGHUP end
    the step, save the checkpoint, and raise KeyboardInterrupt. Raises UserError where the loss is no longer finite.
    """
    if next(model.parameters()).device.type == "cpu":
        keep_heap()
    average = moving_average(model, plan.ema) if plan.ema else None
    parts = Parts(model, optimizer, average)
    progress = _start(run, parts)
    if plan.compile:
        model.backbone.compile()
    log = _Log(run, progress, regime.images_per_step, reporter)
    last_save = time.perf_counter()
    reporter.begin(plan.steps, progress.step)
    try:
        with Interrupt() as interrupt:
            while progress.step < plan.steps and not interrupt.asked:
                step = progress.step
                torch.manual_seed(derive(plan.seed, step, "masks"))
                model.train()
                model.backbone.begin_step(step / plan.steps, generator_for(plan.seed, step, "regularizers"))
                rate = plan.schedule.rate(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                    group["weight_decay"] = plan.weight_decay * model.backbone.weight_decay_scale

                batch = regime.batch(step)
                loss, accuracy = regime.loss(model, batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if plan.clip_norm:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
                optimizer.step()
                if average:
                    average.update_parameters(model)

                progress.step += 1
                log.add(loss.detach(), accuracy, _dropped(model, loss), rate)

                if plan.pace.validates_after(progress.step):
                    log.flush()
                    _validate(run, regime, parts, plan, progress, log)
                if progress.step % LOG_EVERY == 0:
                    log.flush()
                    tidy_heap()
                    if time.perf_counter() - last_save > plan.checkpoint_seconds:
                        _save(run, parts, progress)
                        last_save = time.perf_counter()
        log.flush()
        if plan.steps == 0:  # the untrained network is all there is
            _validate(run, regime, parts, plan, progress, log)
        _save(run, parts, progress)
    finally:
        reporter.end()
    if interrupt.asked:
        raise KeyboardInterrupt(
            f"interrupted at step {progress.step}, checkpoint saved; go on with --out {run.folder} --resume"
        )
    return progress


@dataclass(frozen=True)
class Parts:
    """What training changes, and a checkpoint holds."""

    model: Model
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    def state(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | ({"average": self.average.state_dict()} if self.average else {})

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        check_state(self.optimizer, state["optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])

    @property
    def judged(self) -> Model:
        """The model that is validated, and whose weights are kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, Model)
        return self.average.module


def _start(run: Run, parts: Parts) -> Progress:
    if not run.checkpoint_path.is_file():
        run.truncate_metrics(0)
        return Progress()
    progress = checkpoint.load(run.checkpoint_path, parts.load)
    run.truncate_metrics(progress.metrics_bytes)
    return progress


def _save(run: Run, parts: Parts, progress: Progress) -> None:
    run.sync_metrics()
    checkpoint.save(run.checkpoint_path, parts.state(), progress)


def _dropped(model: Model, like: Tensor) -> Tensor:
    """Fraction of elements dropped in the last forward pass, averaged over the regularizers."""
    fractions = [reg.dropped for reg in model.backbone.regularizers if reg.place != "image"]
    return torch.stack(fractions).mean() if fractions else torch.zeros_like(like)


def _validate(run: Run, regime: Regime, parts: Parts, plan: Plan, progress: Progress, log: _Log) -> None:
    """Validate; keep the weights where the selected figure rises."""
    found = regime.validate(parts.judged)
    best = found.selected > progress.best_accuracy
    if best:
        progress.best_accuracy, progress.best_step = found.selected, progress.step
        parts.judged.save(run.best_path)
    log.validation(found.figures, plan.pace.epochs_done(progress.step), plan.pace.epochs, best)


class _Log:
    """Gathers the steps' figures on the device, and writes them out at each flush."""

    def __init__(self, run: Run, progress: Progress, images_per_step: int, reporter: Reporter) -> None:
        self.run, self.progress, self.reporter = run, progress, reporter
        self.images_per_step = images_per_step
        self.pending: list[Tensor] = []
        self.rates: list[float] = []
        self.clock = time.perf_counter()

    def add(self, loss: Tensor, accuracy: Tensor, dropped: Tensor, lr: float) -> None:
        self.pending.append(torch.stack([loss, accuracy, dropped]))
        self.rates.append(lr)

    def flush(self) -> None:
        if not self.pending:
            return
        figures = torch.stack(self.pending).tolist()  # waits for the device: the loop's only such point
        if not all(math.isfinite(loss) for loss, *_ in figures):
            raise UserError(f"the loss is no longer finite before step {self.progress.step}; train with a lower --lr")
        speed = len(figures) * self.images_per_step / self._lap()
        first = self.progress.step - len(figures) + 1
        rows: list[dict[str, Any]] = [
            {
                "step": step, "loss": loss, "accuracy": accuracy, "dropped": dropped, "lr": lr,
                "images_per_second": round(speed, 1),
            }
            for step, ((loss, accuracy, dropped), lr) in enumerate(zip(figures, self.rates, strict=True), first)
        ]  # fmt: skip
        self.pending, self.rates = [], []
        self.progress.metrics_bytes = self.run.append_metrics(rows)
        mean_loss, mean_accuracy = np.mean([figure[:2] for figure in figures], axis=0)
        self.reporter.step(self.progress.step, mean_loss, mean_accuracy, speed)

    def validation(self, accuracy: dict[str, float], epoch: int, epochs: int, best: bool) -> None:
        seconds = self._lap()
        row = {"step": self.progress.step, "validation": accuracy, "best": best, "seconds": round(seconds, 2)}
        self.progress.metrics_bytes = self.run.append_metrics([row])
        self.reporter.validation(epoch, epochs, accuracy, best)

    def _lap(self) -> float:
        """Seconds since the last lap, counted as training time."""
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        self.progress.train_seconds += seconds
        return seconds
