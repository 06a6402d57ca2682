"""DropPath (after Larsson et al., ICLR 2017): a residual block's branch is left out for some of the images."""

from __future__ import annotations

from torch import Tensor

from fewshot.regularizers.stochasticdepth import StochasticDepth, branch_mask


class DropPath(StochasticDepth):
    """Stochastic depth with one independent draw per image, instead of one per batch.

    Our reading: Larsson et al. drop the inputs of a FractalNet's joins (sec. 3, local drop-path), of which one
    always stays; in a residual block, the one that stays is the shortcut, and the other is the branch. The draw per
    image, the rates rising linearly to `drop_prob` at the last block (block l of L: l/L * drop_prob), and
    the division by the probability of staying are common practice (Zoph et al., CVPR 2018;
    torchvision.ops.stochastic_depth, mode "row"). 0.5 is stochastic depth's default; the paper drops .15.

    Expected drop fraction, of the branches: l/L * drop_prob.
    """

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, 1, 1, 1) multiplier."""
        return branch_mask(len(x), self.survival, x.device)
