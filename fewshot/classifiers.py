"""Classifiers of the base classes: what supervised training puts on top of the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Form:
    """All that it takes to build one: a run folder keeps it."""

    kind: Kind
    classes: int
    rotations: int = 0
    """Number of rotations that a second layer tells apart; 0: no such layer."""


class Classifier(nn.Module):
    """Embeddings (N, D) to logits (N, K) of K classes.

    - "linear": z W^T + b.
    - "cosine": s * cos(z, w_k), with a learned scale s that starts at 10 (Gidaris & Komodakis, CVPR 2018, eq. 4).

    `weight` (K, D): one vector a class. CamDrop is guided by these.
    """

    def __init__(self, form: Form, features: int) -> None:
        super().__init__()
        self.kind = form.kind
        layer = nn.Linear(features, form.classes)  # initialised as torch does by default
        self.weight = layer.weight
        if form.kind == "cosine":
            self.scale = nn.Parameter(torch.tensor(10.0))
        else:
            self.bias = layer.bias
        self.rotation = nn.Linear(features, form.rotations) if form.rotations else None

    def forward(self, z: Tensor) -> Tensor:
        """Embeddings (N, D) -> logits (N, K), float32 whatever the autocast."""
        with torch.autocast(z.device.type, enabled=False):
            if self.kind == "cosine":
                return self.scale * F.normalize(z.float(), dim=1) @ F.normalize(self.weight, dim=1).mT
            return F.linear(z.float(), self.weight, self.bias)

    def rotated(self, z: Tensor) -> Tensor:
        """Embeddings (N, D) -> logits (N, R) of the rotations, float32. Only if the form has rotations."""
        assert self.rotation is not None
        with torch.autocast(z.device.type, enabled=False):
            return self.rotation(z.float())

    def extra_repr(self) -> str:
        return self.kind
