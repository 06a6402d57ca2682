"""TIM: maximises the mutual information between queries and labels (Boudiaf et al., NeurIPS 2020). Transductive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products
from fewshot.heads._joint import joint_gram, squared_norms, support_means, unit_gram


class TIM(Head):
    """A classifier w_c that fits the support, is sure of each query, and uses all classes equally over the queries.

    Embeddings x are divided by their length. With p_ic = softmax_c(-temperature / 2 * ||x_i - w_c||^2), it minimises

        cross_entropy * CE(support) - marginal * H(mean of p over queries) + conditional * mean of H(p) over queries

    (eq. 3) by the alternating direction method, TIM-ADM (proposition 1). It starts with w = class means; each of its
    `steps` is

        q_jc = p_jc^(1 + a) / (sum_j' p_j'c^(1 + a))^b, divided by its sum over classes, for the queries j
        w_c  = (k sum_i [y_ic x_i + p_ic (w_c - x_i)] + r sum_j [q_jc x_j + p_jc (w_c - x_j)])
               / (k sum_i y_ic + r sum_j q_jc)

    for support images i with one-hot labels y, a = conditional, b = marginal / (marginal + 1), k = cross_entropy /
    (1 + a) and r = support images / queries. The defaults are the published code's: 150 steps (its iter), temperature
    15 (temp), weights 0.1, 1 and 0.1 (loss_weights). The logits are those of p.

    The marginal term favours equally many queries of each class. It does harm on unbalanced tasks, as Veilleux et al.
    (NeurIPS 2021) show; marginal=0 removes it.

    w stays a weighted sum of the task's images, so inner products suffice. Not trainable: it is a method for features
    that were trained without it.
    """

    by_products = transductive = True
    trainable = False

    def __init__(
        self, *, steps: int = 150, temperature: float = 15.0, cross_entropy: float = 0.1, marginal: float = 1.0,
        conditional: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if steps < 0:
            raise UserError(f"tim:steps={steps}: give 0 or more")
        if not 0 < temperature < math.inf:
            raise UserError(f"tim:temperature={temperature} is not a positive number")
        for name, value in (("cross_entropy", cross_entropy), ("marginal", marginal), ("conditional", conditional)):
            if not 0 <= value < math.inf:
                raise UserError(f"tim:{name}={value}: give 0 or more")
        self.steps, self.temperature = steps, temperature
        self.cross_entropy, self.marginal, self.conditional = cross_entropy, marginal, conditional

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        return self.solve_products(Products.of(support, query), targets)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products; the classifier is kept as weights (T, W, M) of all images."""
        images, queries = targets.shape[1], products.norms.shape[1]
        gram, weights = unit_gram(joint_gram(products)), support_means(targets, queries)
        on_support, on_queries = self.cross_entropy / (1 + self.conditional), images / queries  # k and r
        balance = self.marginal / (self.marginal + 1)  # b
        labels = on_support * targets.mT
        each = torch.cat([labels.new_full((images,), on_support), labels.new_full((queries,), on_queries)])  # (M,)
        for _ in range(self.steps):
            log_p = self._logits(gram, weights).log_softmax(1)  # (T, W, M)
            sharper = (1 + self.conditional) * log_p[..., images:]
            q = (sharper - balance * sharper.logsumexp(2, keepdim=True)).softmax(1)
            wanted, given = torch.cat([labels, on_queries * q], 2), each * log_p.exp()
            moved = wanted - given + given.sum(2, keepdim=True) * weights
            weights = moved / wanted.sum(2, keepdim=True).clamp_min(torch.finfo(gram.dtype).tiny)
        return self._logits(gram, weights)[..., images:].mT

    def _logits(self, gram: Tensor, weights: Tensor) -> Tensor:
        """-temperature / 2 * ||x - w||^2 (T, W, M), without the term of x alone, which all classes share."""
        products = weights @ gram
        return self.temperature * (products - squared_norms(products, weights)[..., None] / 2)

    def extra_repr(self) -> str:
        return (
            f"steps={self.steps}, temperature={self.temperature:g}, cross_entropy={self.cross_entropy:g},"
            f" marginal={self.marginal:g}, conditional={self.conditional:g}"
        )
