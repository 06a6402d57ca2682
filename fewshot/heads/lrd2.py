"""LR-D2 (Bertinetto et al., ICLR 2019): logistic regression by a few Newton steps that gradients pass through."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.typed import integer, positive
from fewshot.heads._dual import Dual
from fewshot.heads._newton import Separate


class LRD2(Dual):
    """The logit of class k is [q, 1] w_k: the score of a binary logistic regression, class k against the rest.

    w_k comes from `iterations` steps (5 by default) of iteratively reweighted least squares, which start at 0 and
    minimise  1/2 lam ||w||^2 + (sum of the support images' binary cross-entropies).  The column of ones makes an
    intercept, which is penalised like the other weights. The paper presents the binary case. With more classes, its
    code takes one class against the rest, and it trains with the cross-entropy of these scores. With 2 classes there
    are two such regressions here, one the negative of the other.

    In the limit of many iterations, w_k is that of `sklearn.linear_model.LogisticRegression(C=1 / lam,
    fit_intercept=False)` on [x, 1]. After one iteration, it is ridge regression on targets of +2 and -2 with 4 * lam.

    `lam` > 0 is the regularization. `learn_lam=true` makes it a parameter: the softplus of a free number, which keeps
    it positive (our choice, as in r2d2).
    """

    def __init__(self, *, lam: float = 1.0, iterations: int = 5, learn_lam: bool = False) -> None:
        super().__init__()
        self.initial_lam = positive(lam, "lrd2:lam")
        self.iterations = integer(iterations, "lrd2:iterations", 1)
        inverse_softplus = lam + math.log(-math.expm1(-lam))
        self.raw_lam = nn.Parameter(torch.tensor(inverse_softplus)) if learn_lam else None

    @property
    def lam(self) -> Tensor | float:
        """The regularization, positive: a number, or a tensor () that is learned."""
        return self.initial_lam if self.raw_lam is None else F.softplus(self.raw_lam)

    def coefficients(self, gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See Dual.coefficients."""
        a = _reweighted_least_squares((gram + 1) / self.lam, targets.mT, self.iterations)
        weights = a.mT / self.lam
        return weights, weights.sum(1, keepdim=True)  # the column of ones adds 1 to every product

    def extra_repr(self) -> str:
        return f"lam={self.initial_lam}, iterations={self.iterations}, learn_lam={self.raw_lam is not None}"


def _reweighted_least_squares(gram: Tensor, targets: Tensor, iterations: int) -> Tensor:
    """a (T, W, N), in the limit a = targets - sigmoid(a G), for `gram` G (T, N, N) and `targets` (T, W, N) of 0 and 1.

    The paper's step is a = (G + diag(1 / s))^-1 z with s = p (1 - p), p = sigmoid(a G) and z = a G + (targets - p) / s
    (through Woodbury's identity; G has the 1 / lam in it). Here the same a is computed as a change of the last one, so
    that nothing is divided by s, which vanishes where the regression is certain.
    """
    a = torch.zeros_like(targets)
    for _ in range(iterations):
        scores = a @ gram
        error = targets - scores.sigmoid() - a
        root = ((F.logsigmoid(scores) + F.logsigmoid(-scores)) / 2).exp()  # of s
        a = a + error - Separate(gram, root).solve(error @ gram)
    return a
