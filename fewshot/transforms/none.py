"""No transform: heads get the embeddings as they are."""

from __future__ import annotations

from torch import Tensor

from fewshot.transforms._base import Transform


class Identity(Transform):
    """Identity."""

    def forward(self, z: Tensor) -> Tensor:
        """z itself."""
        return z
