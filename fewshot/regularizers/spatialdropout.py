"""SpatialDropout (Tompson et al., CVPR 2015): whole channels are dropped, with inverted scaling."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.regularizers._base import Regularizer, Site


def spatialdropout_mask(x: Tensor, drop_prob: float) -> Tensor:
    """Multiplier (N, C, 1, 1) for x (N, C, H, W): 0 with probability `drop_prob`, else 1 / (1 - drop_prob)."""
    keep = (torch.rand((*x.shape[:2], 1, 1), device=x.device) >= drop_prob).float()
    return keep / (1.0 - drop_prob) if drop_prob < 1 else keep


class SpatialDropout(Regularizer):
    """Each channel of each image is dropped by itself, whole; expected drop fraction: `drop_prob`.

    One trial a feature map, its value extended across the map (sec. 3.2 of the paper, inverted: kept
    channels are scaled up in training, so that nothing changes at test time). The multiplier's mean is
    1 in expectation, not in each sample.
    """

    def __init__(self, site: Site, *, drop_prob: float = 0.1) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob)
        self.drop_prob = drop_prob
        self.active = drop_prob > 0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, 1, 1) multiplier."""
        return spatialdropout_mask(x, self.drop_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"
