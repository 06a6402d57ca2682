"""What every head is, and the few lines that several of them share.

Shapes: T tasks solved at once, N support and Q query images a task, W ways (classes), D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.errors import UserError


@dataclass(frozen=True)
class Products:
    """Inner products of T tasks' embeddings: all that a closed-form head asks of them, however long they are."""

    support: Tensor
    """(T, N, N) float32: of each support image with each."""
    query: Tensor
    """(T, Q, N) float32: of each query image with each support image."""
    norms: Tensor
    """(T, Q) float32: of each query image with itself."""
    features: int
    """D, the length of an embedding."""

    @classmethod
    def of(cls, support: Tensor, query: Tensor) -> Products:
        """From support (T, N, D) and query (T, Q, D)."""
        return cls(support @ support.mT, query @ support.mT, query.square().sum(2), support.shape[2])


class Head(nn.Module):
    """Solves T tasks at once; subclasses implement `solve`, which always runs in float32.

    One that can do with inner products implements `solve_products` too, and says so by `closed_form`: evaluation
    then looks products up, and never gathers embeddings.
    """

    closed_form: bool = False
    shift_invariant: bool = False
    """Whether the same vector added to all embeddings changes nothing: it is then taken away, for the digits' sake."""

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, ways: int | None = None) -> Tensor:
        """support (T, N, D), labels (T, N) in 0..W-1, query (T, Q, D) -> logits (T, Q, W), float32.

        `ways` spares the look at the labels, which on a GPU would wait for it.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        # Gram matrices of thousands of products lose their digits in bf16.
        with torch.autocast(support.device.type, enabled=False):
            return self.solve(support.float(), F.one_hot(labels, ways).float(), query.float())

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W), query (T, Q, D) -> logits (T, Q, W)."""
        raise NotImplementedError

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """The logits (T, Q, W) of `solve` from inner products and one-hot targets (T, N, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def class_weights(self, support: Tensor, labels: Tensor, ways: int | None = None) -> Tensor:
        """The linear classifier behind the logits: (T, W, D) float32 for support (T, N, D) and labels (T, N).

        One weight vector a class: what guides CamDrop, and what class activation maps are drawn with.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        with torch.autocast(support.device.type, enabled=False):
            return self.fit(support.float(), F.one_hot(labels, ways).float())

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W) -> class weights (T, W, D), up to a positive factor.

        UserError from a head that has not implemented it.
        """
        name = type(self).__name__
        raise UserError(f"head {name} has no method `fit`, which camdrop and show cam need; add it, or take proto")


def prototypes(support: Tensor, targets: Tensor) -> Tensor:
    """Class means (T, W, D) of support (T, N, D) under one-hot targets (T, N, W)."""
    return targets.mT @ support / targets.sum(1)[..., None]


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """||q - c||^2 (T, Q, W) for query (T, Q, D) and centres (T, W, D), as |q|^2 - 2qc + |c|^2."""
    products = query @ centres.mT
    return query.square().sum(2, keepdim=True) - 2 * products + centres.square().sum(2)[:, None]
