"""Dropout (Srivastava et al., JMLR 2014), with inverted scaling."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.regularizers._base import Regularizer, Site


def dropout_mask(x: Tensor, drop_prob: float) -> Tensor:
    """Multiplier of x's shape: 0 with probability `drop_prob`, else 1 / (1 - drop_prob)."""
    keep = (torch.rand_like(x, dtype=torch.float32) >= drop_prob).float()
    return keep / (1.0 - drop_prob) if drop_prob < 1 else keep


class Dropout(Regularizer):
    """Each element is dropped independently; expected drop fraction: `drop_prob`.

    The multiplier's mean is 1 in expectation, not in each sample (sec. 4 of the paper, inverted:
    kept units are scaled up in training, so that nothing changes at test time).
    """

    def __init__(self, site: Site, *, drop_prob: float = 0.1) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob)
        self.drop_prob = drop_prob
        self.active = drop_prob > 0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, H, W) multiplier."""
        return dropout_mask(x, self.drop_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"
