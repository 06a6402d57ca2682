"""Prototypical Networks (Snell, Swersky & Zemel, NeurIPS 2017): the nearest class mean."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewshot.heads._base import Head, Products, mean_weights, prototypes, squared_distances


class Proto(Head):
    """The logit of a class is -||q - c||^2 (eq. 2): q is the query, c the mean of the class's support embeddings.

    `variant`:

    - "metaopt" (default; MetaOptNet's code, Lee et al., CVPR 2019) divides by the number of features D and multiplies
      by a learned scale, which starts at 1. So the first losses are near log(ways) whatever D is;
    - "snell" is the paper's plain distance. It has no parameters.
    """

    by_products = shift_invariant = True

    def __init__(self, *, variant: Literal["metaopt", "snell"] = "metaopt") -> None:
        super().__init__()
        self.variant = variant
        if variant == "metaopt":
            self.scale = nn.Parameter(torch.ones(()))

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        # Distances do not depend on the origin, and far from it they lose digits to the rounding of large squares.
        centre = support.detach().mean(1, keepdim=True)
        support, query = support - centre, query - centre
        return self._logits(squared_distances(query, prototypes(support, targets)), query.shape[2])

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products: ||q - c||^2 with each prototype a mean of support images."""
        means = mean_weights(targets)  # (T, W, N)
        centres = ((means @ products.support) * means).sum(2)  # (T, W): ||c||^2
        distances = products.norms[..., None] - 2 * products.query @ means.mT + centres[:, None]
        return self._logits(distances, products.features)

    def _logits(self, distances: Tensor, features: int) -> Tensor:
        return -distances if self.variant == "snell" else -distances / features * self.scale

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """Centred prototypes c_k - mean_j c_j (T, W, D).

        -||q - c_k||^2 = 2 q c_k - ||c_k||^2 - ||q||^2 is linear in q except for the last term, which all classes share.
        All classes share 2 q mean_j c_j, too, so centring changes no prediction.
        """
        centres = prototypes(support, targets)
        return centres - centres.mean(1, keepdim=True)

    def extra_repr(self) -> str:
        return f"variant={self.variant}"
