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

    `init`: where the steps begin.

    - "learned" (default, the paper): weights and biases that are learned for each of `ways` numbers that a class may
      have in its task. So the classes' numbers matter (Ye & Chao, How to Train Your MAML to Excel in Few-Shot
      Classification, ICLR 2022). Tasks of fewer classes take the first ones.
    - "zero": nothing is learned, classes are alike, and there may be any number of them. It is also what Ye & Chao's
      one vector for all classes comes to: added to the weights of every class, it changes no probability.

    `order`: "exact" is the gradient through the steps; "first" takes the steps as constants (FOMAML: Finn, Abbeel &
    Levine, ICML 2017), so that no gradient reaches the support embeddings.

    `lr` is the steps' rate, above 0; `learn_lr=true` makes its logarithm a parameter. The classifier sees embeddings
    divided by sqrt(D): that is our choice, so that one rate, within the task and of the training, suits every length D.
    """

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
        """Logits before the first step, for divided embeddings (T, I, D): (T, I, W), or () where all are 0."""
        if self.init == "zero":
            return z.new_zeros(())
        check_length(self, z.shape[2])
        self.check_ways(ways)
        assert self.start is not None
        return self.start(z)[..., :ways]

    def _descend(self, gram: Tensor, begin_at: Tensor, targets: Tensor) -> Tensor:
        """What the steps add to the classifier, (T, N, W) A: to its weights A^T X, and to its biases the sum over N.

        A step adds a multiple of every support image to each class's weights, so that inner products (T, N, N) of
        support images X are all it needs, and logits change by (X X^T + 1) A. `begin_at`: see `_begin_at`.
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
