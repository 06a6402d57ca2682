"""Targeted PGD: how easily a trained classifier is led to a class that we choose (CamDrop paper, table 7).

Projected gradient descent (Madry et al., ICLR 2018): steps of a fixed size against the sign of the gradient of the
target's cross-entropy, each followed by a projection to the images within `eps` of the clean one, and within [0, 1].

Shapes: N images of S x S pixels in [0, 1], K classes. Sizes are in [0, 1] too: 5 gray levels are 5 / 255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.core.compute import full_fp32
from fewshot.core.errors import UserError
from fewshot.core.modes import evaluating
from fewshot.core.seeding import derive, generator_for
from fewshot.data import Split
from fewshot.data.augment import to_unit
from fewshot.data.images import as_tensor
from fewshot.model import Model

_BATCH = 100  # images attacked at once


@dataclass(frozen=True)
class Attack:
    """The default is the paper's: an L-infinity ball of 5 gray levels, 2 steps of 1.

    `random`: start from a random point of the ball, as the released code does (it also takes steps of
    max(1, eps / steps)); otherwise start from the clean image.
    """

    eps: float = 5 / 255
    step: float = 1 / 255
    steps: int = 2
    random: bool = True

    def __post_init__(self) -> None:
        for name in ("eps", "step"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name}: give 0 to 255 gray levels")
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: give at least 1")


@dataclass(frozen=True)
class Attacked:
    """What became of N images."""

    success: np.ndarray
    """(N,) bool: whether the attacked image is classified as its target."""
    correct: np.ndarray
    """(N,) bool: whether the attacked image is classified correctly."""
    clean: np.ndarray
    """(N,) bool: whether the clean image is classified correctly."""


def pgd(
    logits: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, attack: Attack, start: Tensor | None = None
) -> Tensor:
    """Images (N, 3, S, S) in [0, 1], changed so that `logits` (N, K) name the `targets` (N,).

    `start`: uniform noise in [-1, 1] of the images' shape; eps times it is added first.
    """
    low, high = (images - attack.eps).clamp(min=0), (images + attack.eps).clamp(max=1)
    x = images if start is None else (images + attack.eps * start).clamp(0, 1)
    for _ in range(attack.steps):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            # A sum, not a mean: an image's gradient does not depend on how many others are attacked beside it.
            loss = F.cross_entropy(logits(x), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        x = torch.clamp(x.detach() - attack.step * gradient.sign(), low, high)
    return x.detach()


def random_targets(labels: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """(N,) int64: for each image a class that is not its own, all equally likely; the same for every network."""
    if classes < 2:
        raise UserError("an attack needs another class to lead to")
    draw = np.random.default_rng(derive(seed, 0, "targets of an attack"))
    return (labels + draw.integers(1, classes, len(labels))) % classes


def attack_split(model: Model, split: Split, count: int, attack: Attack, seed: int = 0) -> Attacked:
    """Attack a model's classifier on `count` images of a split, evenly spread over it (and so over its classes).

    Raises UserError if the model has no classifier, or one of another number of classes than the split has.
    """
    if model.classifier is None or len(model.classifier.weight) != len(split.classes):
        raise UserError("the run has no classifier of these classes: attack a supervised one, on its own data set")
    if not 1 <= count <= len(split.images):
        raise UserError(f"--images {count}: the {split.name} split has {len(split.images):,}")
    chosen = np.linspace(0, len(split.images) - 1, count).astype(int)
    labels = split.labels[chosen]
    targets = torch.from_numpy(random_targets(labels, len(split.classes), seed))
    device = model.normalise.scale.device
    classifier = model.classifier

    def logits(images: Tensor) -> Tensor:
        return classifier(model(images))

    clean, attacked = [], []
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)  # their gradients would be computed, but are not wanted
    try:
        with evaluating(model), full_fp32(), torch.no_grad():
            for number, start in enumerate(range(0, count, _BATCH)):
                part = slice(start, start + _BATCH)
                images = to_unit(as_tensor(split.images[chosen[part]]).to(device))
                noise = None
                if attack.random:
                    drawn = torch.rand(images.shape, generator=generator_for(seed, number, "start of an attack"))
                    noise = (2 * drawn - 1).to(device)
                clean.append(logits(images).argmax(1).cpu())
                changed = pgd(logits, images, targets[part].to(device), attack, noise)
                attacked.append(logits(changed).argmax(1).cpu())
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    before, after = torch.cat(clean).numpy(), torch.cat(attacked).numpy()
    return Attacked(after == targets.numpy(), after == labels, before == labels)
