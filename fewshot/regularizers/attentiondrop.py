"""AttentionDrop (Ouyang et al., ICME 2019): drop, or weaken, what is strongest in each map.

Per map F: Fhat = (F - min) / (max - min), and M = S where a Bernoulli draw is 1, else 1. AM: S = 0 on
the top percent, else 1. SM: S = 1 - Fhat. AD: S = 1 - Fhat on the top percent, else 1.

Where the paper is silent or contradicts itself, our reading is: min, max, percentile and sum are taken over
each map; there is one draw per map for AM, which "drops the units in the region altogether", and one per
element for SM and AD (algorithm 1); the rescaling is HW / sum(M). Eq. 9 divides by sum(M) alone, and so shrinks
activations about HW-fold compared with the identity at test time (`literal=true` does just that).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Regularizer, Site, inverse_mean, largest


def weakening(x: Tensor, mode: str, count: int) -> Tensor:
    """1 - S (N, C, H, W): how much each element loses where the draw is 1; `count` is the size of the top percent.

    A constant map (max = min) loses nothing: it has no top.
    """
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    varies = high > low
    gone = varies if mode == "am" else (x - low) / torch.where(varies, high - low, 1)
    return gone.float() if mode == "sm" else gone * largest(x.flatten(2), count).view_as(x)


def attentiondrop_mask(x: Tensor, drawn: Tensor, mode: str, count: int, literal: bool = False) -> Tensor:
    """Multiplier (N, C, H, W) for x of that shape and `drawn`, Bernoulli draws of 0.0 or 1.0 (broadcastable to x).

    Each map is rescaled by HW / sum(M), or by eq. 9's literal 1 / sum(M); a map with nothing left stays 0.
    """
    keep = 1 - drawn * weakening(x, mode, count)
    scale = inverse_mean(keep, (2, 3))
    return keep * (scale / (x.shape[2] * x.shape[3]) if literal else scale)


class AttentionDrop(Regularizer):
    """`mode`: am (the top percent is dropped), sm (everything is weakened) or ad (the top percent is weakened).

    The draw's probability grows linearly from 0 to `drop_prob` over training. `top_percent`: the paper's
    "for example" 20; exactly ceil(top_percent * HW / 100) elements, first index on ties. The default sites are our
    reading, the same for all methods here. The paper, whose experiments are in classification, places it after the
    first two groups (`attentiondrop@1,2`).

    Expected drop fraction at the full rate, for maps that are not constant: drop_prob * ceil(...) / HW in
    mode am; drop_prob / HW in sm and ad, where only the maximum becomes exactly 0. These two weaken more than they
    drop: with probability `drop_prob`, sm weakens every element but the minimum, and ad the top percent only.
    """

    idle_beside = {"top_percent": ("mode", "sm")}

    def __init__(
        self,
        site: Site,
        *,
        mode: Literal["am", "sm", "ad"] = "ad",
        drop_prob: float = 0.1,
        top_percent: float = 20.0,
        literal: bool = False,
    ) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob)
        if not 0 <= top_percent <= 100:
            raise UserError(f"attentiondrop:top_percent={top_percent} is not within 0..100")
        self.mode, self.drop_prob, self.top_percent, self.literal = mode, drop_prob, top_percent, literal
        self.count = math.ceil(top_percent * site.height * site.width / 100)
        self.active = drop_prob > 0 and (mode == "sm" or self.count > 0)

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, H, W) multiplier."""
        draws = (*x.shape[:2], 1, 1) if self.mode == "am" else x.shape
        drawn = (torch.rand(draws, device=x.device) < self.drop_prob * self.progress).float()
        return attentiondrop_mask(x, drawn, self.mode, self.count, self.literal)

    def extra_repr(self) -> str:
        return f"mode={self.mode}, drop_prob={self.drop_prob}, top_percent={self.top_percent}, literal={self.literal}"
