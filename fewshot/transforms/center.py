"""Subtract the base classes' mean (SimpleShot's "centering": Wang, Chao, Weinberger & van der Maaten, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.transforms._base import Transform, check_fitted


class Center(Transform):
    """z - mean, where the mean is that of all base images. SimpleShot's CL2N is `center+l2`."""

    fitted = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None, persistent=False)

    def learn(self, base: Tensor, labels: Tensor | None) -> None:
        """See Transform.learn: the mean (D,), summed in float64."""
        self.mean = base.mean(0, dtype=torch.float64)

    def forward(self, z: Tensor) -> Tensor:
        """See Transform.forward."""
        return z - check_fitted(self, self.mean, z)
