"""Episodic training (Vinyals et al., NeurIPS 2016): each step solves a few tasks that look like the test's.

Shapes: T tasks of a step in this process, W ways, S shots, Q queries a class, D features; B = T * W * (S + Q) images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import heads, transforms
from fewshot.config import TrainConfig
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.core.seeding import generator_for
from fewshot.data import Dataset
from fewshot.data.augment import Augmentation
from fewshot.data.images import ImageSource
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.heads import Head
from fewshot.learning.regimes._base import Regime, Validation, validate_on_tasks
from fewshot.model import Model
from fewshot.regularizers import Guide


@dataclass(frozen=True)
class Episodic(Regime[Tensor]):
    """A batch is T tasks' augmented images (B, 3, S, S), task by task, class by class, support before queries.

    `smoothing`: label smoothing of the queries' cross-entropy, 0..1 (Szegedy et al., CVPR 2016). MetaOptNet's eps is
    the share of the other classes alone: its 0.1, for the SVM, is smoothing=0.125 at five ways.
    """

    shared = True

    sampler: EpisodeSampler
    source: ImageSource
    augment: Augmentation
    tasks_per_step: int
    """In all processes."""
    joint: bool
    """Whether support and query share one forward pass (one set of batch-norm statistics), or have one each."""
    validation: Sequence[Tasks]
    compute: Compute
    smoothing: float = 0.0

    @classmethod
    def build(
        cls,
        config: TrainConfig,
        dataset: Dataset,
        validation: Sequence[Tasks],
        compute: Compute,
        *,
        smoothing: float = 0.0,
    ) -> Episodic:
        """See Regime.build."""
        if not 0 <= smoothing < 1:
            raise UserError(f"episodic:smoothing={smoothing}: give 0 or more, and less than 1")
        return cls(
            EpisodeSampler(dataset["train"], Protocol(config.ways, config.shots, config.queries), config.seed),
            ImageSource(dataset["train"], compute.device),
            Augmentation(config.crop_padding, config.jitter, config.mirror),
            config.episodes_per_batch,
            config.embed == "joint",
            validation,
            compute,
            smoothing,
        )

    @property
    def protocol(self) -> Protocol:
        """The form of a training task."""
        return self.sampler.protocol

    def check(self, model: Model) -> None:
        """See Regime.check: head and transform must be trainable, and the head able to tell a task's classes apart."""
        heads.check_trainable(model.head)
        if model.backbone.guided:
            heads.check_guide(model.head)
        if self.smoothing and type(model.head).loss is not Head.loss:
            raise UserError(f"episodic:smoothing: head {type(model.head).__name__.lower()} has a loss of its own")
        model.head.check_ways(self.protocol.ways)
        transforms.check_trainable(model.transform)

    @property
    def what(self) -> str:
        """See Regime.what."""
        return f"{self.tasks_per_step} {self.protocol.ways}-way {self.protocol.shots}-shot episodes"

    @property
    def images_per_step(self) -> int:
        """B, of all processes."""
        return self.tasks_per_step * self.protocol.images

    def batch(self, step: int) -> Tensor:
        """See Regime.batch: (B, 3, S, S) in [0, 1]."""
        mine, each = self.compute.crew.share(self.tasks_per_step), self.protocol.images
        episodes = self.sampler.draw(step * self.tasks_per_step + mine.start, mine.stop - mine.start)
        images, positions = self.source.fetch(episodes.ravel())
        drawn = self.augment.draw(self.images_per_step, generator_for(self.sampler.seed, step, "augmentation"))
        drawn = drawn[mine.start * each : mine.stop * each]
        return self.augment(images, positions, drawn.to(self.compute.device))

    def loss(self, model: Model, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The head's loss on the queries, by default their mean cross-entropy, and their accuracy."""
        guide = self.guide(model, batch) if model.backbone.guided else None
        with self.compute.autocast():
            support, query = self.embed(model, batch, guide)  # (T, W*S, D), (T, W*Q, D)
        support_labels, query_labels = self.labels(len(support), batch.device)
        if model.head.transductive:  # in class order, it could tell the queries' classes from their places
            order = torch.rand(query_labels.shape, device=batch.device).argsort(1)
            query, query_labels = query.take_along_dim(order[..., None], 1), query_labels.gather(1, order)
        logits = model.solve(support, support_labels, query, self.protocol.ways)  # (T, W*Q, W)
        loss = model.head.loss(logits, query_labels)
        if self.smoothing:
            loss = F.cross_entropy(logits.flatten(0, 1), query_labels.flatten(), label_smoothing=self.smoothing)
        return loss, (logits.detach().argmax(2) == query_labels).float().mean()

    def validate(self, model: Model) -> Validation:
        """Accuracy on the validation tasks, by shots."""
        return validate_on_tasks(model, self.validation, self.compute, self.sampler.split)

    def labels(self, tasks: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Classes 0..W-1 of the support (T, W*S) and of the query images (T, W*Q), class by class."""
        classes = torch.arange(self.protocol.ways, device=device)
        each = (self.protocol.shots, self.protocol.queries)
        support, query = (classes.repeat_interleave(n).expand(tasks, -1) for n in each)
        return support, query

    def embed(self, model: Model, batch: Tensor, guide: Guide | None = None) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) -> support (T, W*S, D) and query (T, W*Q, D)."""
        if self.joint:
            with model.backbone.guided_by(guide):
                support, query = self.split(model(batch))
        else:
            guides = self.split_guide(guide) if guide else [None, None]
            passes = []
            for images, its in zip(self.split(batch), guides, strict=True):
                with model.backbone.guided_by(its):
                    passes.append(model(images.contiguous(memory_format=torch.channels_last)))
            support, query = passes
        tasks, features = len(batch) // self.protocol.images, support.shape[1]
        return support.view(tasks, -1, features), query.view(tasks, -1, features)

    def split(self, each: Tensor) -> tuple[Tensor, Tensor]:
        """Something for each image, (B, ...) -> the support's (T*W*S, ...) and the queries' (T*W*Q, ...)."""
        per_class = (self.protocol.shots, self.protocol.queries)
        support, query = each.view(-1, sum(per_class), *each.shape[1:]).split(per_class, dim=1)
        return support.flatten(0, 1), query.flatten(0, 1)

    def split_guide(self, guide: Guide) -> list[Guide]:
        """The guide of the support images, with labels and named (T*W*S,), and that of the queries, (T*W*Q,)."""
        named = (None, None) if guide.named is None else self.split(guide.named)
        return [Guide(guide.weights, *each) for each in zip(self.split(guide.labels), named, strict=True)]

    @torch.no_grad()
    def guide(self, model: Model, batch: Tensor) -> Guide:
        """The classifier of each episode, fitted on its support images, and each image's class in it.

        Evaluation mode switches the regularizers off and leaves batch-norm statistics unchanged; it need not do more.
        """
        model.eval()
        tasks, ways = len(batch) // self.protocol.images, self.protocol.ways
        support, query = self.split(batch)
        z = self._by_task(model, support, tasks)
        labels, _ = self.labels(tasks, z.device)
        weights = model.head.class_weights(z, labels, ways)
        weights = model.backbone.channel_weights(weights).flatten(0, 1)
        own = torch.arange(tasks * ways, device=z.device).repeat_interleave(self.protocol.images_per_class)
        named = None
        if model.backbone.guided_by_name:
            answers = self._answers(model, z, labels, self._by_task(model, query, tasks))
            rows = answers + ways * torch.arange(tasks, device=z.device)[:, None]
            named = own.view(tasks * ways, -1).clone()
            named[:, self.protocol.shots :] = rows.view(tasks * ways, -1)
            named = named.flatten()
        model.train()
        return Guide(weights, own, named)

    def _answers(self, model: Model, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """(T, W*Q): the class in 0..W-1 that the head names for each query. It sees queries shuffled."""
        order = torch.rand(query.shape[:2], device=query.device).argsort(1)
        shuffled = query.take_along_dim(order[..., None], 1)
        answers = model.solve(support, labels, shuffled, self.protocol.ways).argmax(2)
        return answers.gather(1, order.argsort(1))

    def _by_task(self, model: Model, images: Tensor, tasks: int) -> Tensor:
        """Images (T*N, 3, S, S) of T tasks -> embeddings (T, N, D)."""
        with self.compute.autocast():
            z = model(images.contiguous(memory_format=torch.channels_last))
        return z.view(tasks, -1, z.shape[1])
