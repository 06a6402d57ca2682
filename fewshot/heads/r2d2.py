"""R2D2 (Bertinetto et al., ICLR 2019): ridge regression on one-hot labels, solved in closed form."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.typed import positive
from fewshot.heads._base import Head, Products


def ridge(support: Tensor, targets: Tensor, lam: Tensor | float) -> Tensor:
    """W (T, D, W) = argmin ||X W - Y||^2 + lam ||W||^2 for X (T, N, D), Y (T, N, W).

    It solves the smaller of two systems: Woodbury's X^T (X X^T + lam I)^-1 Y (eq. 6), or, if there are more images than
    features, the primal (X^T X + lam I)^-1 X^T Y (eq. 5).
    """
    tall = support.shape[1] > support.shape[2]
    if tall:
        return solve_shifted(support.mT @ support, lam, support.mT @ targets)
    return support.mT @ solve_shifted(support @ support.mT, lam, targets)


def solve_shifted(gram: Tensor, lam: Tensor | float, right: Tensor) -> Tensor:
    """(G + lam I)^-1 R for symmetric G (T, N, N) without negative eigenvalues and R (T, N, W).

    NaN in each task whose system cannot be factorized because rounding has left it with a negative eigenvalue.
    """
    system = gram + lam * torch.eye(gram.shape[1], device=gram.device, dtype=gram.dtype)
    # cholesky would raise an error instead, and would wait for the GPU to do so.
    factor, info = torch.linalg.cholesky_ex(system)
    solution = torch.cholesky_solve(right, factor)
    return torch.where((info == 0)[:, None, None], solution, torch.nan)


class R2D2(Head):
    """The logits of a query q are q W, where W is the ridge regression of the one-hot labels Y on the support X.

    `lam` > 0 is the regularization. `variant`:

    - "metaopt" (default; MetaOptNet's code, Lee et al., CVPR 2019) has no intercept. It multiplies the logits by a
      learned scale, which starts at 1;
    - "r2d2" is the paper's own. X gets a column of ones, so that W contains an intercept. X and Y are divided by
      sqrt(n) for n support images. The logits are a * q W + b, with learned a and b that start at 1e-4 and 0.

    `learn_lam=true` makes lam a parameter, as in the paper. It is the softplus of a free number, which keeps it
    positive: that is our choice.

    Neither variant is shift-invariant. One has no intercept and the other penalises it, so a vector added to all
    embeddings changes the solution, and embeddings must not be centred. If their offset is too large for float32,
    evaluation works in float64. In all other cases, a task whose system cannot be factorized gets NaN logits.
    """

    by_products = True

    def __init__(
        self, *, variant: Literal["metaopt", "r2d2"] = "metaopt", lam: float = 50.0, learn_lam: bool = False
    ) -> None:
        super().__init__()
        self.variant, self.initial_lam = variant, positive(lam, "r2d2:lam")
        self.scale = nn.Parameter(torch.tensor(1.0 if variant == "metaopt" else 1e-4))
        if variant == "r2d2":
            self.bias = nn.Parameter(torch.zeros(()))
        inverse_softplus = lam + math.log(-math.expm1(-lam))
        self.raw_lam = nn.Parameter(torch.tensor(inverse_softplus)) if learn_lam else None

    @property
    def lam(self) -> Tensor | float:
        """The regularization, positive: a number, or a tensor () that is learned."""
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
        """The ridge solution W as (T, W, D), without the intercept of variant r2d2."""
        return self._ridge(support, targets)[:, : support.shape[2]].mT

    def _ridge(self, support: Tensor, targets: Tensor) -> Tensor:
        """The ridge solution (T, D, W); in variant r2d2 (T, D + 1, W), with the intercept last."""
        if self.variant == "metaopt":
            return ridge(support, targets, self.lam)
        root = math.sqrt(support.shape[1])
        return ridge(_with_ones(support) / root, targets / root, self.lam)

    def extra_repr(self) -> str:
        return f"variant={self.variant}, lam={self.initial_lam}, learn_lam={self.raw_lam is not None}"


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
