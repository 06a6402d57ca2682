"""No regularization: the baseline that every method is compared with."""

from __future__ import annotations

from torch import Tensor

from fewshot.regularizers._base import Regularizer


class Identity(Regularizer):
    """Identity, in training too."""

    active = False

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """Ones (1, 1, 1, 1)."""
        return x.new_ones(1, 1, 1, 1)
