"""MetaOptNet-SVM (Lee et al., CVPR 2019): a multi-class support vector machine, differentiated through its optimum."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.core.typed import positive
from fewshot.heads._dual import Dual
from fewshot.heads._newton import Coupled, identity, settled

_STEPS = 30  # of the interior-point method at most; common tasks take 8 to 12
_GAP = 1e-12  # mean product of slack and multiplier, in units in which an image's squared length is 1
_SHARE = 0.99  # of the way to the boundary
_QPTH_STEPS = 15  # as in MetaOptNet's code, in training and in evaluation


class SVM(Dual):
    """The logit of class k is scale * q w_k, where w is Crammer and Singer's multi-class SVM of the support images.

    Its dual has the coefficients a (N, W) of w_k = sum_n a_nk x_n, for one-hot targets y and K = X X^T:

        minimise  1/2 sum_k a_k' (K + I) a_k - sum(y * a)   where  a <= C y  and  each image's a add up to zero.

    That is MetaOptNet's quadratic program (the I is in its code). With the same C, it is what
    `sklearn.svm.LinearSVC(multi_class="crammer_singer", C=C, fit_intercept=False)` solves for the embeddings [x, e_n],
    where e_n is a feature that only image n has. MetaOptNet's C is 0.1, the default. The learned scale starts at 1.

    `solver`:

    - "batched" (default): an interior-point method for all tasks at once, on the CPU or a GPU. Its logits are
      differentiated implicitly, by the linear system of the last step;
    - "qpth": the package that MetaOptNet's code calls (Amos & Kolter, OptNet), with the 15 iterations set there. It has
      to be installed, and is many times slower.
    """

    def __init__(self, *, C: float = 0.1, solver: Literal["batched", "qpth"] = "batched") -> None:
        super().__init__()
        self.C, self.solver = positive(C, "svm:C"), solver
        if solver == "qpth":
            _qpth()  # if it is missing, the error comes before any work
        self.scale = nn.Parameter(torch.ones(()))

    def coefficients(self, gram: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See Dual.coefficients."""
        gram = gram + identity(gram)
        dual = (_batched if self.solver == "batched" else _by_qpth)(gram, targets.mT, self.C)
        weights = self.scale * dual.mT
        return weights, torch.zeros_like(weights[:, :1])

    def extra_repr(self) -> str:
        return f"C={self.C:g}, solver={self.solver}"


def _batched(gram: Tensor, targets: Tensor, C: float) -> Tensor:
    """a (T, W, N) that minimises  1/2 sum_k a_k' G a_k - sum(y * a)  where  a <= C y  and  sum_k a = 0.

    For `gram` G (T, N, N), positive definite, and `targets` y (T, W, N).
    """
    with torch.no_grad():
        a, slack, multiplier = _interior_point(gram, targets, C)
    # One more step towards the optimum, which changes next to nothing. But its derivative with respect to G is that of
    # the optimum: the implicit function theorem, applied to the optimality conditions.
    da = Coupled(gram.detach(), (slack / multiplier).sqrt()).solve(targets - a @ gram)
    beyond = 1 - _reach(slack, -da.detach())  # the part that would leave what is allowed; it has no derivative
    return a + da - beyond * da.detach()


def _interior_point(gram: Tensor, targets: Tensor, C: float) -> tuple[Tensor, Tensor, Tensor]:
    """The minimum a of `_batched`, and slack and multiplier of each a <= C y, all (T, W, N).

    Mehrotra's predictor-corrector method (Nocedal & Wright, Numerical Optimization, 2006, section 16.6). The slacks are
    s = C y - a >= 0, their multipliers z >= 0. At the optimum y - a G - z is the same for all classes of an image, and
    s z = 0. The condition sum_k a = 0, which every a below meets, needs no multiplier here: `Coupled` solves for it.
    """
    ways = targets.shape[1]
    # In units of the mean squared length, tasks of short and of long embeddings are alike.
    unit = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    gram, bound = gram / unit, C * unit
    ahead = targets - 1 / ways  # the start is on this line: where the objective is least, if that is allowed
    length = ahead.square().sum((1, 2), keepdim=True) / (ahead @ gram * ahead).sum((1, 2), keepdim=True)
    length = torch.minimum(length, bound)
    a = length * ahead
    slack = bound * targets - a
    # The same product for all: the bound may be so large that half of the slacks are millions of times the others.
    multiplier = length / ways / slack
    for step in range(_STEPS):
        gap = (slack * multiplier).mean((1, 2), keepdim=True)
        if settled(gap, _GAP, step):
            break
        systems = Coupled(gram, (slack / multiplier).sqrt())
        right = targets - a @ gram
        # The predictor aims at s z = 0 at once. How far it gets decides how much of the gap to aim at. It neglects the
        # product of both changes, which the corrector corrects.
        da = systems.solve(right)
        dz = multiplier / slack * da - multiplier
        part = torch.minimum(_reach(slack, -da), _reach(multiplier, dz))
        left = ((slack - part * da) * (multiplier + part * dz)).mean((1, 2), keepdim=True)
        aim = (left / gap) ** 3 * gap + da * dz
        da = systems.solve(right - aim / slack)
        dz = (aim + multiplier * da) / slack - multiplier
        part = _SHARE * torch.minimum(_reach(slack, -da), _reach(multiplier, dz))
        part = torch.where(gap < _GAP, 0.0, part)  # a task that has converged stays: others may need more steps
        a, slack, multiplier = a + part * da, slack - part * da, multiplier + part * dz
    return a / unit, slack / unit, multiplier


def _reach(value: Tensor, change: Tensor) -> Tensor:
    """The largest part (T, 1, 1) of a change, at most 1, that keeps all of value + part * change >= 0."""
    return 1 / (-change / value).amax((1, 2), keepdim=True).clamp_min(1)


def _by_qpth(gram: Tensor, targets: Tensor, C: float) -> Tensor:
    """As `_batched`, with the package qpth: the coefficients of all images and classes are one vector (T, N * W)."""
    tasks, ways, images = targets.shape
    wide = targets.mT.flatten(1)
    quadratic = torch.kron(gram.contiguous(), identity(targets @ targets.mT)[None])
    sums = identity(gram).repeat_interleave(ways, 1)  # (N, N * W)
    solve = _qpth()(verbose=-1, maxIter=_QPTH_STEPS)
    found = solve(quadratic, -wide, identity(quadratic), C * wide, sums, gram.new_zeros(tasks, images))
    return found.view(tasks, images, ways).mT


def _qpth():
    """qpth's solver. Raises UserError if it is not installed."""
    try:
        from qpth.qp import QPFunction
    except ImportError as error:
        remedy = "pip install 'fewshot[svm]', or leave solver out"
        raise UserError(f"head svm:solver=qpth needs the package qpth ({error}): {remedy}") from None
    return QPFunction
