"""Heads whose class weights are combinations of the support images: logits q X^T A + b."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.heads._base import Head, Products

_AT_ONCE = 256  # tasks: their systems then stay in a processor's cache


class Dual(Head):
    """A linear classifier with the weights X^T A of the support images X (T, N, D), found from inner products alone.

    A subclass implements `coefficients`, which is always called in float64: the systems are small, so this costs
    little, and solving several of them in a row loses digits that float32 does not have.
    """

    by_products = True

    def coefficients(self, gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A (T, N, W) and b (T, 1, W) from the inner products (T, N, N) of support images and targets (T, N, W).

        All are float64.
        """
        raise NotImplementedError

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        return self.solve_products(_products(support, query), targets).to(support.dtype)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products."""
        weights, bias = self._coefficients(products.support, targets)
        return products.query @ weights + bias

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """X^T A as (T, W, D)."""
        weights, _ = self._coefficients(_products(support, support).support, targets)
        return weights.mT.to(support.dtype) @ support

    def _coefficients(self, gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`coefficients` of some tasks at a time, returned in the precision of the inputs."""
        parts = zip(gram.split(_AT_ONCE), targets.split(_AT_ONCE), strict=True)
        solved = [self.coefficients(some.double(), its.double()) for some, its in parts]
        weights, bias = (torch.cat(each).to(gram.dtype) for each in zip(*solved, strict=True))
        return weights, bias


def _products(support: Tensor, query: Tensor) -> Products:
    """In float64 if there are more images than features.

    The matrix of products is then singular, and rounding in float32 would give a large one negative eigenvalues.
    """
    if support.shape[1] > support.shape[2]:
        support, query = support.double(), query.double()
    return Products.of(support, query)
