"""ANIL (Raghu et al., Rapid Learning or Feature Reuse?, ICLR 2020): MAML that adapts the last layer only."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products, check_length


class ANIL(Head):
    """A linear classifier after `steps` steps of gradient descent on the support images' mean cross-entropy.

    `init`: where the steps start.

    - "learned" (default, as in the paper): learned weights and a bias for each of the `ways` numbers that a class may
      have in its task. So it matters which number a class has (Ye & Chao, How to Train Your MAML to Excel in Few-Shot
      Classification, ICLR 2022). Tasks with fewer classes use the first ones.
    - "zero": nothing is learned, all classes are treated alike, and there may be any number of them. Ye & Chao's single
      vector for all classes amounts to the same: added to the weights of every class, it changes no probability.

    `order`: "exact" takes the gradient through the steps; "first" treats the steps as constants (FOMAML: Finn, Abbeel &
    Levine, ICML 2017), so that no gradient reaches the support embeddings.

    `lr` > 0 is the learning rate of the steps; `learn_lr=true` makes its logarithm a parameter. The classifier sees
    embeddings divided by sqrt(D). That is our choice: one rate, within the task and in training, then suits every
    length D.
    """

    idle_beside = {"ways": ("init", "zero")}

    def __init__(
        self,
        *,
        steps: int = 5,
        lr: float = 3.0,
        learn_lr: bool = False,
        order: Literal["exact", "first"] = "exact",
        init: Literal["learned", "zero"] = "learned",
        ways: int = 5,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise UserError(f"anil:steps={steps} is not 1 or more")
        if not 0 < lr < math.inf:
            raise UserError(f"anil:lr={lr} is not a positive number")
        if ways < 2:
            raise UserError(f"anil:ways={ways} is not 2 or more")
        self.steps, self.initial_lr, self.init, self.ways = steps, lr, init, ways
        self.log_lr = nn.Parameter(torch.tensor(math.log(lr))) if learn_lr else None
        self.first_order = order == "first"
        self.numbered = self.needs_training = init == "learned"
        self.by_products = init == "zero"
        self.start: nn.Linear | None = None

    def begin(self, features: int, shape: tuple[int, int, int] | None) -> None:
        """See Head.begin."""
        if self.init == "learned":
            self.start = nn.Linear(features, self.ways)

    def check_ways(self, ways: int) -> None:
        """See Head.check_ways."""
        if self.init == "learned" and ways > self.ways:
            raise UserError(
                f"head ANIL learns where to begin for {self.ways} classes, and these tasks have {ways}: train with"
                f" anil:ways={ways}, or with init=zero"
            )

    @property
    def lr(self) -> Tensor | float:
        """The inner learning rate: a number, or a tensor () that is learned."""
        return self.initial_lr if self.log_lr is None else self.log_lr.exp()

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        support, query = (z / math.sqrt(z.shape[2]) for z in (support, query))
        at_support, at_query = (self._begin_at(z, targets.shape[2]) for z in (support, query))
        if self.first_order:
            support = support.detach()
        moves = self._descend(support @ support.mT, at_support, targets)
        return at_query + (query @ support.mT + 1) @ moves

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products."""
        support, query = (each / products.features for each in (products.support, products.query))
        return (query + 1) @ self._descend(support, support.new_zeros(()), targets)

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """The adapted weights (T, W, D), without their biases."""
        ways, support = targets.shape[2], support / math.sqrt(support.shape[2])
        moves = self._descend(support @ support.mT, self._begin_at(support, ways), targets)
        weights = moves.mT @ support
        return weights if self.start is None else weights + self.start.weight[:ways]

    def _begin_at(self, z: Tensor, ways: int) -> Tensor:
        """Logits before the first step, for divided embeddings (T, I, D): (T, I, W), or () if all are 0."""
        if self.init == "zero":
            return z.new_zeros(())
        check_length(self, z.shape[2])
        self.check_ways(ways)
        assert self.start is not None
        return self.start(z)[..., :ways]

    def _descend(self, gram: Tensor, begin_at: Tensor, targets: Tensor) -> Tensor:
        """A (T, N, W): the steps add A^T X to the classifier's weights, and the sum of A over N to its biases.

        A step adds a multiple of every support image to each class's weights. So it needs only the inner products
        (T, N, N) of the support images X, and logits change by (X X^T + 1) A. `begin_at`: see `_begin_at`.
        """
        moves = torch.zeros_like(targets)
        for _ in range(self.steps):
            logits = begin_at + (gram + 1) @ moves
            residuals = (logits.softmax(2) - targets) / targets.shape[1]  # the loss's gradient in the logits
            if self.first_order:
                residuals = residuals.detach()
            moves = moves - self.lr * residuals
        return moves

    def extra_repr(self) -> str:
        order = "first" if self.first_order else "exact"
        return f"steps={self.steps}, lr={self.initial_lr}, order={order}, init={self.init}, ways={self.ways}"
