"""The training loop.

Shapes: T tasks in a step, W ways, S shots, Q queries, D features; B = T * W * (S + Q) images.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.config import TrainConfig
from fewshot.core.compute import Compute, keep_heap, tidy_heap
from fewshot.core.errors import UserError
from fewshot.core.seeding import derive, generator_for
from fewshot.data.augment import Augmentation
from fewshot.data.images import ImageSource
from fewshot.data.store import Dataset
from fewshot.episodes import EpisodeSampler, Protocol, Tasks, frozen
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies
from fewshot.learning import checkpoint
from fewshot.learning.checkpoint import Progress
from fewshot.learning.display import Display
from fewshot.learning.interrupt import Interrupt
from fewshot.learning.schedule import learning_rate
from fewshot.model import Model
from fewshot.regularizers import Guide
from fewshot.runs import Run

LOG_EVERY = 10  # steps between looks at the losses: each look waits for the device


def train(
    run: Run, config: TrainConfig, dataset: Dataset, model: Model, compute: Compute, display: Display
) -> Progress:
    """Train `model` (already on its device), from the run's checkpoint if it has one.

    Leaves metrics, checkpoint and the best validation's weights in the run folder. SIGINT and SIGTERM
    end the step, save the checkpoint, and raise KeyboardInterrupt. Raises UserError where the loss is
    no longer finite.
    """
    if compute.device.type == "cpu":
        keep_heap()
    protocol = Protocol(config.ways, config.shots, config.queries)
    sampler = EpisodeSampler(dataset["train"], protocol, config.seed)
    source = ImageSource(dataset["train"], compute.device)
    augment = Augmentation(config.crop_padding, config.jitter, config.mirror)
    optimizer = torch.optim.SGD(
        model.parameters(), config.lr, momentum=config.momentum, nesterov=config.momentum > 0,
        weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip
    progress = _start(run, model, optimizer)
    if config.compile:
        model.backbone.compile()
    log = _Log(run, progress, protocol.images * config.episodes_per_batch, display)
    last_save = time.perf_counter()
    display.begin(config.steps, progress.step)
    with display, Interrupt() as interrupt:
        while progress.step < config.steps and not interrupt.asked:
            step = progress.step
            torch.manual_seed(derive(config.seed, step, "masks"))
            model.train()
            model.backbone.begin_step(step / config.steps, generator_for(config.seed, step, "regularizers"))
            lr = learning_rate(config, step)
            for group in optimizer.param_groups:
                group["lr"] = lr
                group["weight_decay"] = config.weight_decay * model.backbone.weight_decay_scale

            episodes = sampler.draw(step * config.episodes_per_batch, config.episodes_per_batch)
            images, positions = source.fetch(episodes.ravel())
            drawn = augment.draw(len(positions), generator_for(config.seed, step, "augmentation"))
            batch = augment(images, positions, drawn.to(compute.device))  # (B, 3, H, W)

            loss, accuracy = solve(model, batch, config, compute)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

            progress.step += 1
            log.add(loss.detach(), accuracy, _dropped(model, loss), lr)

            if config.validates_after(progress.step):
                log.flush()
                _validate(run, config, dataset, model, compute, progress, log)
            if progress.step % LOG_EVERY == 0:
                log.flush()
                tidy_heap()
                if time.perf_counter() - last_save > config.checkpoint_seconds:
                    _save(run, model, optimizer, progress)
                    last_save = time.perf_counter()
    log.flush()
    if config.steps == 0:  # the untrained network is all there is
        _validate(run, config, dataset, model, compute, progress, log)
    _save(run, model, optimizer, progress)
    if interrupt.asked:
        raise KeyboardInterrupt(
            f"interrupted at step {progress.step}, checkpoint saved; go on with --out {run.folder} --resume"
        )
    return progress


def solve(model: Model, batch: Tensor, config: TrainConfig, compute: Compute) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) of a step's episodes -> the queries' cross-entropy and accuracy, one number each."""
    guide = episode_guide(model, batch, config, compute) if model.backbone.guided else None
    with compute.autocast():
        support, query = embed_episodes(model, batch, config, guide)  # (T, W*S, D), (T, W*Q, D)
    support_labels, query_labels = episode_labels(len(support), config, batch.device)
    logits = model.head(support, support_labels, query, ways=config.ways)  # (T, W*Q, W)
    loss = F.cross_entropy(logits.flatten(0, 1), query_labels.flatten())
    return loss, (logits.detach().argmax(2) == query_labels).float().mean()


def episode_labels(tasks: int, config: TrainConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Classes 0..W-1 of the support (T, W*S) and of the query images (T, W*Q), class by class."""
    classes = torch.arange(config.ways, device=device)
    support, query = (classes.repeat_interleave(n).expand(tasks, -1) for n in (config.shots, config.queries))
    return support, query


def embed_episodes(
    model: Model, batch: Tensor, config: TrainConfig, guide: Guide | None = None
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W), episode by episode and class by class -> support (T, W*S, D), query (T, W*Q, D)."""
    tasks = len(batch) // (config.ways * (config.shots + config.queries))
    if config.embed == "joint":
        parts = support_and_query(model(batch, guide), config)
    else:
        labels = support_and_query(guide.labels, config) if guide else ()
        guides = [guide._replace(labels=part) for part in labels] or [None, None]
        images = [part.contiguous(memory_format=torch.channels_last) for part in support_and_query(batch, config)]
        parts = [model(*part) for part in zip(images, guides, strict=True)]
    support, query = (z.view(tasks, -1, z.shape[1]) for z in parts)
    return support, query


def support_and_query(each: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Split what there is one of an image, (B, ...), into support (T*W*S, ...) and query (T*W*Q, ...)."""
    per_class = (config.shots, config.queries)
    support, query = each.view(-1, sum(per_class), *each.shape[1:]).split(per_class, dim=1)
    return support.flatten(0, 1), query.flatten(0, 1)


@torch.no_grad()
def episode_guide(model: Model, batch: Tensor, config: TrainConfig, compute: Compute) -> Guide:
    """The classifier of each episode, fitted on its support images, and each image's own class in it.

    Evaluation mode is all that this pass must be: regularizers off, batch-norm statistics left as they are.
    """
    model.eval()
    support, _ = support_and_query(batch, config)
    with compute.autocast():
        z = model(support.contiguous(memory_format=torch.channels_last))
    z = z.view(-1, config.ways * config.shots, z.shape[1])
    labels, _ = episode_labels(len(z), config, z.device)
    weights = model.backbone.channel_weights(model.head.class_weights(z, labels, config.ways)).flatten(0, 1)
    model.train()
    own = torch.arange(len(weights), device=z.device).repeat_interleave(config.shots + config.queries)
    return Guide(weights, own)


def _start(run: Run, model: Model, optimizer: torch.optim.Optimizer) -> Progress:
    if not run.checkpoint_path.is_file():
        run.truncate_metrics(0)
        return Progress()
    progress = checkpoint.load(run.checkpoint_path, model, optimizer)
    run.truncate_metrics(progress.metrics_bytes)
    return progress


def _save(run: Run, model: Model, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    run.sync_metrics()
    checkpoint.save(run.checkpoint_path, model, optimizer, progress)


def _dropped(model: Model, like: Tensor) -> Tensor:
    """Fraction of elements dropped in the last forward pass, averaged over the regularizers."""
    fractions = [reg.dropped for reg in model.backbone.regularizers if reg.place != "image"]
    return torch.stack(fractions).mean() if fractions else torch.zeros_like(like)


def _validate(
    run: Run, config: TrainConfig, dataset: Dataset, model: Model, compute: Compute, progress: Progress, log: _Log
) -> None:
    """Score the fixed validation episodes; keep the weights where accuracy at `val_shots` rises."""
    selecting = config.val_shots or config.shots
    shots = list(dict.fromkeys((selecting, *config.test_shots)))
    split, queries = dataset["val"], config.test_queries
    samplers = [EpisodeSampler(split, Protocol(config.test_ways, n, queries), frozen.SEED) for n in shots]
    scored = score(model, split, [Tasks(sampler, config.val_episodes) for sampler in samplers], compute)
    means = {n: float(accuracies(right, queries).mean()) for n, right in zip(shots, scored, strict=True)}
    selected = means[selecting]
    best = selected > progress.best_accuracy
    if best:
        progress.best_accuracy, progress.best_step = selected, progress.step
        model.save(run.best_path)
    log.validation({f"{n}shot": mean for n, mean in means.items()}, config, best)


class _Log:
    """Gathers the steps' figures on the device, and writes them out at each flush."""

    def __init__(self, run: Run, progress: Progress, images_per_step: int, display: Display) -> None:
        self.run, self.progress, self.display = run, progress, display
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
        self.display.step(self.progress.step, mean_loss, mean_accuracy, speed)

    def validation(self, accuracy: dict[str, float], config: TrainConfig, best: bool) -> None:
        seconds = self._lap()
        row = {"step": self.progress.step, "validation": accuracy, "best": best, "seconds": round(seconds, 2)}
        self.progress.metrics_bytes = self.run.append_metrics([row])
        self.display.validation(config.epochs_done(self.progress.step), config.epochs, accuracy, best)

    def _lap(self) -> float:
        """Seconds since the last lap, counted as training time."""
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        self.progress.train_seconds += seconds
        return seconds
