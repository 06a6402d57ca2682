"""The images that are shown, what a classifier of them is fitted to, and what a network makes of them on the way.

Shapes: N images shown, W ways, D features, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.data import Dataset
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.evaluation.solve import wants_base
from fewshot.model import Model
from fewshot.regularizers import Guide

SHOTS = 5  # support images a class, to which the classifier of a scene is fitted
LEAST_WAYS = 5


@dataclass(frozen=True)
class Scene:
    """One episode of a validation split; the query image of each of its first N classes is shown."""

    classes: tuple[str, ...]
    """(N,) names."""
    shown: np.ndarray
    """(N, S, S, 3) uint8; none of them is in the support."""
    support: np.ndarray
    """(W * SHOTS, S, S, 3) uint8, class by class, the shown classes first."""
    labels: np.ndarray | None = None
    """(N,) class numbers in training, if the data set has the same classes in every split."""


def scene(dataset: Dataset, images: int, seed: int) -> Scene:
    """`images` of the validation split, one a class, and what a classifier of them is fitted to.

    The same for the same membership, `images` and `seed`. Raises UserError if there are not that many classes.
    """
    split = dataset["val"]
    count = len(split.classes)
    if not 1 <= images <= count:
        raise UserError(
            f"--images {images}: one is shown of each class, and the validation split of {dataset.name} has {count};"
            f" give 1 to {count}"
        )
    ways = max(images, min(LEAST_WAYS, count))
    episode = EpisodeSampler(split, Protocol(ways, SHOTS, queries=1), seed).draw(0, 1)[0]  # (W, SHOTS + 1)
    shown = episode[:images, SHOTS]
    labels = split.labels[shown]
    classes = tuple(split.classes[label] for label in labels)
    known = labels if dataset.shared_classes else None
    return Scene(classes, split.images[shown], split.images[episode[:, :SHOTS].ravel()], known)


def guide(model: Model, scene: Scene) -> Guide:
    """The classifier of `class_weights` on the channels of the deepest map, and each shown image's class in it."""
    weights, own = class_weights(model, scene)
    named = _named(model, scene) if model.backbone.guided_by_name else None
    return Guide(model.backbone.channel_weights(weights), own, named)


def class_weights(model: Model, scene: Scene) -> tuple[Tensor, Tensor]:
    """A classifier on embeddings, (W, D), and each shown image's class in it, (N,).

    The model's own, if it was trained to name these classes; else the one that its head fits to the scene's episode.
    """
    if model.classifier is not None and scene.labels is not None:
        return model.classifier.weight.detach(), torch.from_numpy(scene.labels)
    ways = len(scene.support) // SHOTS
    labels = torch.arange(ways).repeat_interleave(SHOTS)
    weights = model.head.class_weights(model.embed(scene.support)[None], labels[None], ways)  # (1, W, D)
    return weights[0], torch.arange(len(scene.shown))


def _named(model: Model, scene: Scene) -> Tensor:
    """(N,): the row of `class_weights` that the model names for each shown image.

    As in training, but without a transform or head that must first be fitted on the base classes.
    """
    shown = model.embed(scene.shown)
    if model.classifier is not None and scene.labels is not None:
        return model.classifier(shown).argmax(1)
    ways = len(scene.support) // SHOTS
    labels = torch.arange(ways).repeat_interleave(SHOTS)
    solve = model.head if wants_base(model.head, model.transform) else model.solve
    order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))  # so that no place tells the class
    named = solve(model.embed(scene.support)[None], labels[None], shown[order][None], ways)[0].argmax(1)
    return named[order.argsort()]


def outputs(model: Model, modules: Sequence[nn.Module], images: np.ndarray) -> list[Tensor]:
    """What each of `modules` returns, (N, ...) float32, while `model` embeds uint8 images (N, S, S, 3)."""
    caught: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}

    def catch(module: nn.Module, _, output: Tensor) -> None:
        caught[module].append(output.float().clone())  # the next layer may work in place

    hooks = [module.register_forward_hook(catch) for module in caught]
    try:
        model.embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(caught[module]) for module in modules]
