"""SpatialDropout (Tompson et al., CVPR 2015): whole channels are dropped, with inverted scaling."""

from __future__ import annotations

from torch import Tensor

from fewshot.regularizers.dropout import Dropout, dropout_mask


def spatialdropout_mask(x: Tensor, drop_prob: float) -> Tensor:
    """Multiplier (N, C, 1, 1) for x (N, C, H, W): 0 with probability `drop_prob`, else 1 / (1 - drop_prob)."""
    return dropout_mask(x[:, :, :1, :1], drop_prob)


class SpatialDropout(Dropout):
    """Whole channels of each image are dropped independently; expected drop fraction: `drop_prob`.

    One trial per feature map, its value extended across the map (sec. 3.2 of the paper, inverted: kept
    channels are scaled up in training, so that nothing changes at test time). The multiplier's mean is
    1 in expectation, not in each sample.
    """

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, 1, 1) multiplier."""
        return spatialdropout_mask(x, self.drop_prob)
