"""Stochastic depth (Huang et al., ECCV 2016): a residual block's branch is left out for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.regularizers._base import Regularizer, Site


def survival(drop_prob: float, depth: int, depths: int) -> float:
    """Eq. 4: a branch's probability of staying: linear, from 1 at the input to 1 - drop_prob at the last block."""
    return 1 - depth / depths * drop_prob


def branch_mask(draws: int, stays: float, device: torch.device) -> Tensor:
    """Multiplier (draws, 1, 1, 1): 1 / stays with probability `stays`, else 0."""
    kept = torch.empty((draws, 1, 1, 1), device=device).bernoulli_(stays)
    return kept / stays if stays > 0 else kept


class StochasticDepth(Regularizer):
    """One draw per block and pass, for all images: their branch stays, or only the shortcut is left (eq. 2).

    Block l of L stays with probability 1 - l/L * `drop_prob` (eq. 4, "linear decay"; the paper's p_L = 0.5 is
    the default). L counts all blocks of the network, wherever the method is placed. Default sites: every
    residual block; backbones without any decline it. If a network does not number its blocks, name modules that end
    branches (docs/networks.md): L is then the number of additions at which branches end in the whole network.

    Our reading: a branch that stays is divided by its probability of staying, as
    torchvision.ops.stochastic_depth does, and evaluation changes nothing. The paper multiplies by that
    probability in evaluation instead (eq. 5); batch norm, last in the branch, then learns another scale.
    A draw is for one forward pass: with `--embed separate`, support and query have one each. The branch is
    computed even if it is dropped: no time is saved, but batch norm sees every batch.

    Expected drop fraction, of the branches: l/L * drop_prob, over steps; in any one step it is 0 or 1.
    """

    place = "branch"

    def __init__(self, site: Site, *, drop_prob: float = 0.5) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob)
        self.drop_prob = drop_prob
        self.survival = survival(drop_prob, site.depth, site.depths)
        self.active = self.survival < 1

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(1, 1, 1, 1) multiplier."""
        return branch_mask(1, self.survival, x.device)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}, survival={self.survival:g}"
