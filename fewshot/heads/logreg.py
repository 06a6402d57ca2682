"""Multinomial logistic regression per task, with an L2 penalty (as scikit-learn's; Tian et al., ECCV 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.core.typed import positive
from fewshot.heads._dual import Dual
from fewshot.heads._newton import Coupled, cholesky, identity, settled

_STEPS = 40  # of Newton's method at most; common tasks take 4 to 8
_TOLERANCE = 1e-9  # of the optimality conditions, which are about probabilities
_HALVINGS = 10  # lengths that are tried for a step: 2, 1, 1/2, ... 1/256, and 0
_ROUNDING = 1e-13  # relative, of a difference in float64
_NEAR = 0.5  # a step that changes no difference of two scores by more than this is taken whole


class LogReg(Dual):
    """The logit of class k is q w_k + b_k, where w and b minimise 1/2 ||w||^2 + C * (sum of support cross-entropies).

    This is `sklearn.linear_model.LogisticRegression(C=C)`: same C, same loss, and intercepts b without a penalty. In a
    2-way task scikit-learn has one weight vector, not two, so its `C=2 * C` gives the same classifier.

    `C` > 0 (default 1) is the inverse of the regularization. RFS (Tian et al., "Rethinking Few-Shot Image
    Classification") regresses on embeddings of length 1: that is `--transform l2`.

    Newton's method minimises it until the optimality conditions hold to 1e-9, in at most 40 steps. A task that has not
    converged by then (huge embeddings with fewer features than images) keeps the best solution so far. Logits are
    differentiated implicitly, which is exact, so networks can be trained with it. It has no parameters.
    """

    shift_invariant = True

    def __init__(self, *, C: float = 1.0) -> None:
        super().__init__()
        self.C = positive(C, "logreg:C")

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        # The origin does not matter, and far from it inner products lose their digits to rounding.
        centre = support.detach().mean(1, keepdim=True)
        return super().solve(support - centre, targets, query - centre)

    def coefficients(self, gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See Dual.coefficients."""
        means = gram.mean(1, keepdim=True)
        centred = gram - means - means.mT + means.mean(2, keepdim=True)
        # The coefficients of a class add up to zero, so adding a constant to the matrix changes no score. With this
        # one, the matrix has no direction that is tiny beside the others.
        size = centred.detach().diagonal(dim1=1, dim2=2).mean(1)
        dual, bias = _minimise(self.C * (centred + size[:, None, None]), targets.mT)
        weights = self.C * dual.mT
        # Likewise, the centring leaves only a constant for each class.
        return weights, bias.mT - means @ weights

    def extra_repr(self) -> str:
        return f"C={self.C:g}"


def _minimise(gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """a (T, W, N) and b (T, W, 1) of the scores f = a G + b that minimise  1/2 sum_k a_k' G a_k + cross-entropies.

    They solve  a = targets - softmax(f)  and  sum_n a = 0  for `gram` G (T, N, N) and `targets` (T, W, N).
    """
    a, b = torch.zeros_like(targets), torch.zeros_like(targets[..., :1])
    with torch.no_grad():
        for step in range(_STEPS):
            if settled((targets - (a @ gram + b).softmax(1) - a).abs(), _TOLERANCE, step):
                break
            a, b = _advance(gram, targets, a, b)
    # One more step, which changes next to nothing. But its derivative with respect to G is that of the solution,
    # because the step's own matrix multiplies an error of zero: the implicit function theorem.
    return _advance(gram, targets, a, b)


def _advance(gram: Tensor, targets: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a and b after one step of Newton's method, of the best length."""
    scores = a @ gram + b
    chances = scores.softmax(1)
    da, db = _newton(gram.detach(), a, targets - chances - a, chances.detach())
    with torch.no_grad():
        length = _length(gram, targets, (a, scores), (da, da @ gram + db))
    return torch.where(length > 0, a + length * da, a), torch.where(length > 0, b + length * db, b)


def _newton(gram: Tensor, a: Tensor, error: Tensor, chances: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step (da, db) for the error (T, W, N) of the first condition, at the probabilities `chances`.

    With H the Hessian of the cross-entropies and P = (G + H^-1)^-1, which is what `Coupled` solves:
    da = error - P (G error + db), and db makes the coefficients of each class add up to zero.
    """
    systems = Coupled(gram, chances.sqrt())
    without = error - systems.solve(error @ gram)  # db = 0
    alone, shared = systems.of_ones()
    curvature = torch.diag_embed(alone.sum(2)) - alone @ shared  # (T, W, W): ones' P ones
    # The same constant for all classes changes no probability: curvature is singular there, and db must have none.
    # If all is nearly certain, the difference above is mere rounding: enough is added to keep it positive.
    mean = curvature.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    rounding = _ROUNDING * alone.sum(2).mean(1)[:, None, None]
    curvature = curvature + mean + rounding * identity(curvature)
    db = torch.cholesky_solve((without + a).sum(2, keepdim=True), cholesky(curvature))
    db = db - db.mean(1, keepdim=True)
    return without - systems.solve(db.expand_as(error)), db


def _length(gram: Tensor, targets: Tensor, start: tuple[Tensor, Tensor], step: tuple[Tensor, Tensor]) -> Tensor:
    """How much of a step to take from a start, both given as (a, scores): (T, 1, 1). Near the minimum, all of it.

    Elsewhere, the length that lowers the loss most: scores move along a line, so trying lengths is cheap. None of a
    step that rounding has spoilt.
    """
    (a, scores), (da, change) = start, step
    lengths = F.pad(2 * 0.5 ** torch.arange(_HALVINGS, dtype=gram.dtype, device=gram.device), (0, 1))
    tried = scores[:, None] + lengths[:, None, None] * change[:, None]  # (T, L, W, N)
    losses = tried.logsumexp(2).sum(2) - (tried * targets[:, None]).sum((2, 3))
    slope, bend = (((da @ gram) * other).sum((1, 2)) for other in (a, da))  # of the penalty, less its constant
    losses = losses + lengths * slope[:, None] + lengths.square() * bend[:, None] / 2
    best = lengths[losses.nan_to_num(torch.inf).argmin(1)]
    widest = (change.amax(1) - change.amin(1)).amax(1)
    return torch.where(widest < _NEAR, 1.0, torch.where(widest.isfinite(), best, 0.0))[:, None, None]
