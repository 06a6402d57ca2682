"""Cosine similarity to class prototypes, with a learned temperature (Gidaris & Komodakis, CVPR 2018; Meta-Baseline)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.typed import positive
from fewshot.heads._base import Head, Products, mean_weights, prototypes
from fewshot.heads._cosine import inverse_norms, support_norms


class Cosine(Head):
    """The logit of a class is scale * cos(q, c), where c is the class's prototype and `scale` is learned.

    `scale` > 0 (one over a temperature) starts at 10, as in Meta-Baseline's code. `prototype`:

    - "mean" (default): the mean of the class's support embeddings (Meta-Baseline: Chen et al., ICCV 2021);
    - "normalised": the mean of the embeddings divided by their lengths, so that each image counts the same (Gidaris &
      Komodakis: their feature averaging, without the attention over base classes).

    With one shot the two are the same.
    """

    by_products = True

    def __init__(self, *, prototype: Literal["mean", "normalised"] = "mean", scale: float = 10.0) -> None:
        super().__init__()
        self.prototype = prototype
        self.scale = nn.Parameter(torch.tensor(float(positive(scale, "cosine:scale"))))

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products: a prototype is a sum of support images, each with its share."""
        shares = mean_weights(targets)  # (T, W, N)
        if self.prototype == "normalised":
            shares = shares * support_norms(products.support)[:, None]
        lengths = ((shares @ products.support) * shares).sum(2)  # (T, W): ||c||^2
        cosines = products.query @ shares.mT * inverse_norms(lengths)[:, None]
        return self.scale * cosines * inverse_norms(products.norms)[..., None]

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """Prototypes (T, W, D) of length 1: except for the query's length, the logits are linear in the query."""
        if self.prototype == "normalised":
            support = F.normalize(support, dim=2)
        return F.normalize(prototypes(support, targets), dim=2)

    def extra_repr(self) -> str:
        return f"prototype={self.prototype}"
