"""R2D2 (Bertinetto et al., ICLR 2019): ridge regression on one-hot labels, solved in closed form."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products


def ridge(support: Tensor, targets: Tensor, lam: Tensor | float) -> Tensor:
    """W (T, D, W) = argmin ||X W - Y||^2 + lam ||W||^2 for X (T, N, D), Y (T, N, W).

    Through the smaller system: Woodbury's X^T (X X^T + lam I)^-1 Y (eq. 6), or the primal
    (X^T X + lam I)^-1 X^T Y (eq. 5) where there are more images than features.
    """
    tall = support.shape[1] > support.shape[2]
    if tall:
        return solve_shifted(support.mT @ support, lam, support.mT @ targets)
    return support.mT @ solve_shifted(support @ support.mT, lam, targets)


def solve_shifted(gram: Tensor, lam: Tensor | float, right: Tensor) -> Tensor:
    """(G + lam I)^-1 R for symmetric G (T, N, N), of no negative eigenvalue, and R (T, N, W)."""
    system = gram + lam * torch.eye(gram.shape[1], device=gram.device)
    # cholesky_ex reports failure without asking the device for it, as cholesky would.
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve(right, factor)


class R2D2(Head):
    """Logits q W of the ridge solution W, with `lam` > 0 and `variant`:

    - "metaopt" (default, Lee et al., CVPR 2019): times a learned scale, initially 1;
    - "r2d2": the paper's own: a column of ones (an intercept), X and Y divided by sqrt(n) for n
      support images, and logits a * out + b, learned, initially 1e-4 and 0.

    `learn_lam`: lam is a parameter, kept positive by softplus, as in the paper.
    """

    closed_form = True

    def __init__(
        self, *, variant: Literal["metaopt", "r2d2"] = "metaopt", lam: float = 50.0, learn_lam: bool = False
    ) -> None:
        super().__init__()
        if not 0 < lam < math.inf:
            raise UserError(f"r2d2:lam={lam} is not a positive number")
        self.variant, self.initial_lam = variant, lam
        self.scale = nn.Parameter(torch.tensor(1.0 if variant == "metaopt" else 1e-4))
        if variant == "r2d2":
            self.bias = nn.Parameter(torch.zeros(()))
        inverse_softplus = lam + math.log(-math.expm1(-lam))
        self.raw_lam = nn.Parameter(torch.tensor(inverse_softplus)) if learn_lam else None

    @property
    def lam(self) -> Tensor | float:
        """The regularization, positive."""
        return self.initial_lam if self.raw_lam is None else F.softplus(self.raw_lam)

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        weights = self._ridge(support, targets)
        if self.variant == "metaopt":
            return query @ weights * self.scale
        return _with_ones(query) @ weights * self.scale + self.bias

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products: q X^T (X X^T + lam I)^-1 Y; a column of ones adds 1 to every product."""
        if self.variant == "metaopt":
            return products.query @ solve_shifted(products.support, self.lam, targets) * self.scale
        images = targets.shape[1]
        dual = solve_shifted((products.support + 1) / images, self.lam, targets / images)
        return (products.query + 1) @ dual * self.scale + self.bias

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """Ridge solution (T, W, D), the intercept of variant r2d2 left out."""
        return self._ridge(support, targets)[:, : support.shape[2]].mT

    def _ridge(self, support: Tensor, targets: Tensor) -> Tensor:
        """(T, D, W), or with the intercept last (T, D + 1, W)."""
        if self.variant == "metaopt":
            return ridge(support, targets, self.lam)
        root = math.sqrt(support.shape[1])
        return ridge(_with_ones(support) / root, targets / root, self.lam)

    def extra_repr(self) -> str:
        return f"variant={self.variant}, lam={self.initial_lam}, learn_lam={self.raw_lam is not None}"


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
