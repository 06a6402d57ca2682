"""The training loop. It knows steps, not what a step is: that is up to the regime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.core.compute import keep_heap, tidy_heap
from fewshot.core.crew import ALONE, Crew
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.core.seeding import derive, generator_for
from fewshot.learning.checkpoint import Progress
from fewshot.learning.interrupt import Interrupt
from fewshot.learning.keeper import Keeper, Parts
from fewshot.learning.optimizer import MovingAverage
from fewshot.learning.regimes import Regime
from fewshot.learning.reporter import Reporter
from fewshot.learning.schedule import Schedule
from fewshot.model import Model
from fewshot.runs import Run

LOG_EVERY = 10  # steps between looks at the losses: each look waits for the device


@dataclass(frozen=True)
class Plan:
    """How long to train, and by which rules."""

    seed: int
    schedule: Schedule
    weight_decay: float
    pace: Pace
    checkpoint_seconds: float
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0: no limit."""
    ema: float = 0.0
    """Decay of the weights' moving average, which is then validated and kept instead of them; 0: no average."""
    compile: bool = False

    @property
    def steps(self) -> int:
        return self.pace.steps


def train(
    run: Run, model: Model, regime: Regime, optimizer: torch.optim.Optimizer, plan: Plan, reporter: Reporter,
    intact: Callable[[], None] = lambda: None, crew: Crew = ALONE,
) -> Progress:  # fmt: skip
    """Train `model` (already on its device), from the run's checkpoint if it has one.

    Leaves metrics, checkpoint and the best validation's weights in the run folder. After SIGINT, SIGTERM or SIGHUP, the
    step is completed, the checkpoint saved, and KeyboardInterrupt raised. Raises UserError if the loss, a weight or a
    statistic is no longer finite; the best weights until then are kept.

    `intact` is called before each validation and each checkpoint: if it raises, they do not take place.

    Each process of a `crew` calls `train`, and has the same model after each step. Only the first needs the run folder.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu:
        keep_heap()
    average = MovingAverage(model, plan.ema) if plan.ema else None
    parts = Parts(model, optimizer, average)
    keeper = Keeper(run, parts, crew)
    progress = keeper.start()
    if plan.compile:
        model.backbone.compile()
    weight = crew.weight(plan.pace.per_step)
    of_loss = torch.full((), weight, device=next(model.parameters()).device) if crew.several else None
    try:
        reporter.begin(run, plan.steps, progress.step)
        log = _Log(keeper, progress, regime.images_per_step, reporter, crew, weight)  # its clock starts
        last_save = time.perf_counter()
        with Interrupt(patient=crew.several) as interrupt:
            while progress.step < plan.steps and not crew.any(interrupt.asked):
                step = progress.step
                reporter.step_begins(step)
                torch.manual_seed(derive(plan.seed, step, crew.purpose("masks")))
                model.train()
                model.backbone.begin_step(step / plan.steps, generator_for(plan.seed, step, "regularizers"))
                rate = plan.schedule.rate(step)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                    group["weight_decay"] = plan.weight_decay * model.backbone.weight_decay_scale

                batch = regime.batch(step)
                loss, accuracy = regime.loss(model, batch)
                optimizer.zero_grad(set_to_none=True)
                loss.backward(of_loss)  # its share in the loss of the whole batch
                crew.unite(model, weight)
                if plan.clip_norm:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
                optimizer.step()
                if average:
                    average.update_parameters(model)

                progress.step += 1
                log.add(loss.detach(), accuracy, _dropped(model, loss), rate)

                if plan.pace.validates_after(progress.step):
                    log.flush()
                    intact()
                    _validate(regime, parts, plan, progress, keeper, log, rate)
                if progress.step % LOG_EVERY == 0:
                    log.flush()
                    if on_cpu:
                        tidy_heap()
                    if time.perf_counter() - last_save > plan.checkpoint_seconds:
                        intact()
                        keeper.save(progress)
                        last_save = time.perf_counter()
        log.flush()
        intact()
        if plan.steps == 0 and not progress.metrics_bytes:  # the untrained network is all there is
            _validate(regime, parts, plan, progress, keeper, log, rate=0.0)
        keeper.save(progress)
    finally:
        reporter.end()
    if crew.any(interrupt.asked):  # here the others wait for the one that saves
        raise KeyboardInterrupt(
            f"interrupted at step {progress.step}, checkpoint saved; go on with --out {run.folder} --resume"
        )
    return progress


def _dropped(model: Model, like: Tensor) -> Tensor:
    """Fraction of elements dropped in the last forward pass, averaged over the regularizers."""
    fractions = [reg.dropped for reg in model.backbone.regularizers if reg.place != "image"]
    return torch.stack(fractions).mean() if fractions else torch.zeros_like(like)


def _validate(
    regime: Regime, parts: Parts, plan: Plan, progress: Progress, keeper: Keeper, log: _Log, rate: float
) -> None:
    """Validate; keep the weights if the selected figure rises. UserError if that is NaN, or a weight is not finite."""
    for name, tensor in parts.judged.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _diverged(f"{name} is", progress, rate)
    keeper.check_same()
    found = regime.validate(parts.judged)
    if math.isnan(found.selected):
        raise _diverged("the validation is", progress, rate)
    best = found.selected > progress.best_accuracy
    if best:
        progress.best_accuracy, progress.best_step = found.selected, progress.step
        keeper.keep_best(progress)
    log.validation(found.figures, plan.pace.epochs_done(progress.step), plan.pace.epochs, best)


def _diverged(what: str, progress: Progress, rate: float) -> UserError:
    kept = f"; the best weights are kept, of step {progress.best_step}" if progress.best_step else ""
    return UserError(
        f"{what} no longer finite before step {progress.step}, at the learning rate {rate:g}{kept}; train again with a"
        " lower --lr"
    )


class _Log:
    """Gathers the steps' figures on the device, and writes them out at each flush."""

    def __init__(
        self, keeper: Keeper, progress: Progress, images_per_step: int, reporter: Reporter, crew: Crew, weight: float
    ) -> None:
        self.keeper, self.progress, self.reporter = keeper, progress, reporter
        self.images_per_step, self.crew, self.weight = images_per_step, crew, weight
        self.pending: list[Tensor] = []
        self.rates: list[float] = []
        self.clock = time.perf_counter()

    def add(self, loss: Tensor, accuracy: Tensor, dropped: Tensor, lr: float) -> None:
        self.pending.append(torch.stack([loss, accuracy, dropped]))
        self.rates.append(lr)

    def flush(self) -> None:
        if not self.pending:
            return
        gathered = torch.stack(self.pending)
        self.crew.add_up([gathered], self.weight)
        figures = gathered.tolist()  # waits for the device: the loop's only such point, unless the head waits, too
        if not all(math.isfinite(loss) for loss, *_ in figures):
            raise _diverged("the loss is", self.progress, self.rates[-1])
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
        self.keeper.log(rows)
        mean_loss, mean_accuracy = np.mean([figure[:2] for figure in figures], axis=0)
        self.reporter.step(self.progress.step, mean_loss, mean_accuracy, speed)

    def validation(self, accuracy: dict[str, float], epoch: int, epochs: int, best: bool) -> None:
        seconds = self._lap()
        row = {"step": self.progress.step, "validation": accuracy, "best": best, "seconds": round(seconds, 2)}
        self.keeper.log([row])
        self.reporter.validation(epoch, epochs, accuracy, best)

    def _lap(self) -> float:
        """Seconds since the last lap, counted as training time."""
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        self.progress.train_seconds += seconds
        return seconds
