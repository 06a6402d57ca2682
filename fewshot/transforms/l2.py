"""Scale each embedding to length 1 (SimpleShot's "L2N": Wang, Chao, Weinberger & van der Maaten, 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.transforms._base import Transform

_LEAST = 1e-12  # length below which an embedding is not scaled up to 1: zeros stay zeros


class L2(Transform):
    """z / ||z||; an embedding of zeros stays as it is."""

    def forward(self, z: Tensor) -> Tensor:
        """See Transform.forward."""
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True, dtype=torch.float64)  # in float32, squares overflow
        return z / length.clamp_min(_LEAST).to(z.dtype)
