"""DropBlock (Ghiasi, Lin & Le, NeurIPS 2018): contiguous squares of a map are dropped.

The implementation that few-shot code has copied since MetaOptNet expands a seed to its whole block
only where gcd(number of seeds, block_size^2) = 1, and so drops .0835 where .10 was asked for
(block_size 5). Here every seed becomes its whole block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.errors import UserError
from fewshot.regularizers._base import Regularizer, Site, inverse_mean


def seed_rate(drop_prob: Tensor | float, block_size: int, height: int, width: int) -> Tensor | float:
    """Eq. 1: a seed's probability, for `drop_prob` of an H x W map to go if blocks never met."""
    fits = (height - block_size + 1) * (width - block_size + 1)
    return drop_prob / block_size**2 * (height * width) / fits


def blocks_from_seeds(seeds: Tensor, block_size: int) -> Tensor:
    """Seeds (N, C, H-b+1, W-b+1), each a block's upper left corner, to the blocks' union (N, C, H, W)."""
    return F.max_pool2d(F.pad(seeds, [block_size - 1] * 4), block_size, stride=1)


def expected_drop(drop_prob: float, block_size: int, height: int, width: int) -> float:
    """Exact expected fraction dropped: mean over positions of 1 - (1 - seed_rate)^(blocks covering it)."""
    ones = torch.ones(1, 1, height - block_size + 1, width - block_size + 1, dtype=torch.float64)
    coverage = F.conv2d(F.pad(ones, [block_size - 1] * 4), ones.new_ones(1, 1, block_size, block_size))
    rate = min(1.0, seed_rate(drop_prob, block_size, height, width))
    return (1 - (1 - rate) ** coverage).mean().item()


def dropblock_mask(x: Tensor, drop_prob: Tensor | float, block_size: int) -> Tensor:
    """Multiplier (N, C, H, W) for x of that shape; its mean over the whole batch is 1 (sec. 3, alg. 1)."""
    height, width = x.shape[-2:]
    seeds_shape = (*x.shape[:2], height - block_size + 1, width - block_size + 1)
    noise = torch.rand(seeds_shape, device=x.device)
    seeds = (noise < seed_rate(drop_prob, block_size, height, width)).float()
    keep = 1 - blocks_from_seeds(seeds, block_size)
    return keep * inverse_mean(keep, (0, 1, 2, 3))


class DropBlock(Regularizer):
    """Squares of block_size x block_size, seeded where they fit, independently in each channel.

    The rate grows linearly from 0 to `drop_prob` over the first `ramp` of training (a fraction;
    0: constant; the paper's scheme, sec. 4, over all of it, is the default). Expected drop fraction:
    `expected_drop` of the rate at the time (.0935 for 0.1 on 10x10 maps with block_size 5).
    `block_size`: 5, or 2 for small images (32 px), as MetaOptNet; a default is clipped to the map.
    """

    def __init__(
        self, site: Site, *, drop_prob: float = 0.1, block_size: int | None = None, ramp: float = 1.0
    ) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob, ramp=ramp)
        if drop_prob == 1:
            raise UserError("dropblock:drop_prob=1 drops everything; give less than 1")
        self.drop_prob, self.ramp = drop_prob, ramp
        self.block_size = self.fit_block(block_size, default=2 if site.small_images else 5)
        self.active = drop_prob > 0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, H, W) multiplier."""
        grown = (self.progress / self.ramp).clamp(max=1.0) if self.ramp else 1.0
        return dropblock_mask(x, self.drop_prob * grown, self.block_size)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}, block_size={self.block_size}, ramp={self.ramp}"
