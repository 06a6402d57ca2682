"""Prototypes refined by the queries, with soft k-means (Ren et al., ICLR 2018, section 3.1.1). Transductive."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.heads._base import Products
from fewshot.heads._joint import joint_gram, squared_distances_to, support_means
from fewshot.heads.proto import Proto


class SoftKMeans(Proto):
    """Each query belongs to each class in part and moves its prototype. The logits are proto's with the new prototypes.

    With prototypes p_c, support images x_i of one-hot labels y_ic, and queries q_j, a step is (eq. 3, 4):

        z_jc = exp(l_jc) / sum_c' exp(l_jc'),  l_jc = -||q_j - p_c||^2
        p_c  = (sum_i y_ic x_i + sum_j z_jc q_j) / (sum_i y_ic + sum_j z_jc)

    `steps` = 1 is the paper's; with 0 this is proto. The paper refines with unlabelled images that are not queries; we
    use the queries, which makes this head transductive.

    `variant` is that of proto: "snell" (default) is the paper's plain distance, with which a long embedding belongs
    almost wholly to one class; "metaopt" has l_jc = -||q_j - p_c||^2 / D * scale, with the learned scale of the logits.
    """

    transductive = True

    def __init__(self, *, steps: int = 1, variant: Literal["metaopt", "snell"] = "snell") -> None:
        super().__init__(variant=variant)
        if steps < 0:
            raise UserError(f"softkmeans:steps={steps}: give 0 or more")
        self.steps = steps

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        centre = support.detach().mean(1, keepdim=True)  # far from the origin, products lose their digits to rounding
        return self.solve_products(Products.of(support - centre, query - centre), targets)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products: prototypes are weighted means of all images."""
        images, queries = targets.shape[1], products.norms.shape[1]
        gram, means = joint_gram(products), support_means(targets, queries)
        for step in range(self.steps + 1):
            logits = self._logits(squared_distances_to(gram, means)[..., images:], products.features)  # (T, W, Q)
            if step < self.steps:
                shares = torch.cat([targets.mT, logits.softmax(1)], 2)  # (T, W, M)
                means = shares / shares.sum(2, keepdim=True)
        return logits.mT

    def extra_repr(self) -> str:
        return f"steps={self.steps}, {super().extra_repr()}"
