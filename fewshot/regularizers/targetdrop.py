"""TargetDrop (Zhu & Zhao, 2020): drop the strongest region of the most attended channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Regularizer, Site, inverse_mean, largest


def targets(attention: Tensor, count: int, ties: str = "lowest") -> Tensor:
    """Eq. 3: 1.0 for the `count` channels of largest attention (N, C), 0.0 for the others.

    Exactly `count`, lowest index first among equals; `ties="all"` is the paper's literal ">=",
    which takes every channel that equals the last one taken.
    """
    if ties == "all" and count > 0:
        return (attention >= attention.sort(dim=1, descending=True).values[:, count - 1 : count]).float()
    return largest(attention, count)


def region(x: Tensor, block_size: int) -> Tensor:
    """Eq. 4: 1.0 within block_size // 2 of each map's maximum (N, C, H, W), clipped at the border."""
    height, width = x.shape[-2:]
    peak = x.flatten(2).argmax(2)[..., None]  # (N, C, 1): the first maximum, row by row
    rows = (torch.arange(height, device=x.device) - peak // width).abs() <= block_size // 2
    columns = (torch.arange(width, device=x.device) - peak % width).abs() <= block_size // 2
    return (rows[..., :, None] & columns[..., None, :]).float()


def targetdrop_mask(x: Tensor, chosen: Tensor, block_size: int) -> Tensor:
    """Eq. 5-6: multiplier (N, C, H, W), zero in the regions of `chosen` (N, C) channels.

    Each map is rescaled by HW / (what is left of it); a map with nothing left stays 0, where the
    equation would divide by zero (block 5 on a 5x5 map with the maximum in its centre).
    """
    keep = 1 - chosen[..., None, None] * region(x, block_size)
    return keep * inverse_mean(keep.detach(), (2, 3))


class TargetDrop(Regularizer):
    """M = sigmoid(W2 relu(W1 GAP(x))) (eq. 1-2) selects the floor(drop_prob * C) target channels.

    M enters the output through a sort and an indicator only, so as written neither W1 nor W2 ever receives a
    gradient, and the attention is a fixed random projection. `attention` chooses what to make of it:

    - "frozen" (default): the paper as written; W1, W2 are buffers, so that weight decay cannot shrink M to ties.
    - "ste": straight-through, the gradient reaches W1 and W2 as if the indicator were M.
    - "ste_reversed": the same with its sign reversed (learns to drop what hurts).
    - "gap": M = GAP(x), no weights.
    - "random": M is noise.

    A frozen attention hardly tells images apart. On 300 validation images of mini-ImageNet at 42 px, two images share a
    median of 78 % (site 2) and 85 % (site 3) of their 9 of 64 target channels in untrained Conv-4, and 62 % and
    67 % in networks trained with it for 3,000 steps; by chance it would be 14 %. Trained attention ("ste") tells them
    apart less: 95 % and 97 %. "gap" does tell them apart: 22 % and 18 %. With 64 channels and reduction 16 there are 4
    hidden units: in untrained networks they are all 0 for 4.6 % and 4.8 % of the images. Then all channels tie, and
    those of lowest index are taken. Measured by scripts/targetdrop_attention.py; results/targetdrop-attention.md has
    the table.

    `reduction`: C / reduction hidden units, at least 1, no biases (as the paper's 0.02% of parameters implies).
    `block_size`: 5, or 3 for small images (32 px); an even one acts as block_size + 1 (eq. 4 takes floor(k/2) to each
    side). `ties`: see `targets`.

    Our readings: the sites, because the paper says about few-shot learning only that TargetDrop replaces the network's
    own regularization; on 32 px images, blocks of 3 at the two sites before the last, while the paper has blocks of 5
    after the first two groups (`targetdrop@1,2:block_size=5`).

    Expected drop fraction: about floor(drop_prob * C) / C * block_size^2 / HW, less what borders
    clip. No schedule, identity at test time.
    """

    idle_beside = {"reduction": ("attention", "gap", "random")}
    w1: Tensor
    w2: Tensor

    def __init__(
        self,
        site: Site,
        *,
        drop_prob: float = 0.15,
        block_size: int | None = None,
        reduction: int = 16,
        attention: Literal["frozen", "ste", "ste_reversed", "gap", "random"] = "frozen",
        ties: Literal["lowest", "all"] = "lowest",
    ) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob)
        if reduction < 1:
            raise UserError(f"targetdrop:reduction={reduction} is not a positive number")
        self.drop_prob, self.attention, self.ties = drop_prob, attention, ties
        self.block_size = self.fit_block(block_size, default=3 if site.small_images else 5)
        self.count = int(drop_prob * site.channels + 1e-9)  # floor, safe from 0.29 * 100 = 28.999...
        self.active = self.count > 0
        self.differentiable_mask = attention.startswith("ste")
        if attention in ("frozen", "ste", "ste_reversed"):
            hidden = max(1, site.channels // reduction)
            for name, shape in (("w1", (hidden, site.channels)), ("w2", (site.channels, hidden))):
                weight = nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5)  # nn.Linear's own
                if attention == "frozen":
                    self.register_buffer(name, weight)
                else:
                    self.register_parameter(name, nn.Parameter(weight))

    def logits(self, x: Tensor) -> Tensor:
        """(N, C): what channels are ranked by. Logits, not their sigmoids, which round to ties."""
        pooled = x.mean((2, 3))
        if self.attention == "gap":
            return pooled
        if self.attention == "random":
            return torch.rand_like(pooled)
        return torch.relu(pooled @ self.w1.T) @ self.w2.T

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, C, H, W) multiplier; in the straight-through modes with a gradient to W1 and W2."""
        logits = self.logits(x)
        chosen = targets(logits.detach(), self.count, self.ties)
        if self.differentiable_mask:
            attention = logits.sigmoid() * (-1 if self.attention == "ste_reversed" else 1)
            chosen = chosen + (attention - attention.detach())  # exactly the indicator in value
        return targetdrop_mask(x, chosen, self.block_size)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}, block_size={self.block_size}, attention={self.attention}"
