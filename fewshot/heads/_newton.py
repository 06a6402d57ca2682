"""The linear systems behind Newton's method for a classifier whose weights are combinations of support images.

Such a classifier gives class k the scores G a_k on the support images, where G are their inner products. One step of
Newton's method (for logistic regression) or of an interior-point method (for a support vector machine) solves

    (G + diag(1 / w_k)) a_k = r_k             for each class k by itself: `Separate`, or
    (G + diag(1 / w_k)) a_k + u = r_k,  with  sum_k a_k = 0,  the same u for every class: `Coupled`.

The second is how softmax and Crammer and Singer's hinge loss tie the classes together. As one system it has N * W
unknowns. Eliminating u leaves W + 1 systems of N (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
algorithm 3.3): 20 times less work in a 5-way task.

Shapes: T tasks, N support images, W classes. Coefficients are (T, W, N), one row per class.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PATIENCE = 4  # steps between two questions to a GPU


class Separate:
    """(G + diag(1 / w_k)) a_k = r_k for `gram` G (T, N, N) and `root` (T, W, N), the square roots of w_k >= 0.

    A weight of 0 holds its coefficient at 0. The solution is NaN in a task whose G is not finite, or has a negative
    eigenvalue beyond rounding.
    """

    def __init__(self, gram: Tensor, root: Tensor) -> None:
        # I + diag(root) G diag(root) has no eigenvalue below 1, whatever the weights.
        system = root[..., None] * gram[:, None] * root[..., None, :] + identity(gram)
        self.factor, info = torch.linalg.cholesky_ex(system)  # (T, W, N, N)
        self.root = torch.where((info == 0)[..., None], root, torch.nan)

    def solve(self, right: Tensor) -> Tensor:
        """a (T, W, N) for r (T, W, N)."""
        return self.root * torch.cholesky_solve((self.root * right)[..., None], self.factor)[..., 0]

    def inverses(self) -> Tensor:
        """(G + diag(1 / w_k))^-1, (T, W, N, N)."""
        return self.root[..., None] * torch.cholesky_inverse(self.factor) * self.root[..., None, :]


class Coupled:
    """(G + diag(1 / w_k)) a_k + u = r_k with sum_k a_k = 0: see `Separate`.

    Each image needs a positive weight in at least one class.
    """

    def __init__(self, gram: Tensor, root: Tensor) -> None:
        self.inverses = Separate(gram, root).inverses()
        self.shared = cholesky(self.inverses.sum(1))  # (T, N, N): the system of u

    def solve(self, right: Tensor) -> Tensor:
        """a (T, W, N) for r (T, W, N)."""
        free = (self.inverses @ right[..., None])[..., 0]
        u = torch.cholesky_solve(free.sum(1)[..., None], self.shared)  # (T, N, 1)
        return free - (self.inverses @ u[:, None])[..., 0]

    def of_ones(self) -> tuple[Tensor, Tensor]:
        """The solution for r_d = 1 in one class d and 0 in the others: a_d without u, and u itself.

        (T, W, N), one row per d, and (T, N, W), one column per d.
        """
        alone = self.inverses.sum(3)
        return alone, torch.cholesky_solve(alone.mT, self.shared)


def identity(like: Tensor) -> Tensor:
    """The identity (N, N), of the type and device of matrices (..., N, N)."""
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def cholesky(system: Tensor) -> Tensor:
    """Lower factors of symmetric matrices (..., N, N); NaN where a matrix is not positive definite.

    torch.linalg.cholesky would raise an error instead, and would wait for the GPU to do so.
    """
    factor, info = torch.linalg.cholesky_ex(system)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


def settled(error: Tensor, tolerance: float, step: int) -> bool:
    """Whether the error (T, ...) of every task is below the tolerance, so that an iteration may end.

    A GPU is asked only after every fourth step, because the caller then has to wait: a few more steps cost less.
    """
    if error.is_cuda and (step == 0 or step % _PATIENCE):
        return False
    return bool(error.max() < tolerance)
