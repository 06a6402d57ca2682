"""What every backbone is: blocks in a row, each followed by the regularizers of its site."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewshot import regularizers
from fewshot.errors import UserError
from fewshot.regularizers import Regularizer, Site


class Backbone(nn.Module):
    """Images (N, 3, S, S), normalised, to embeddings (N, D).

    A subclass gives its blocks and how many channels each one leaves; every block halves the map
    (floor). Site i is the output of block i, counted from 1.
    """

    def __init__(self, image_size: int, reg: str, blocks: list[nn.Module], channels: list[int]) -> None:
        super().__init__()
        sizes = [image_size // 2**depth for depth in range(1, len(blocks) + 1)]
        if sizes[-1] < 1:
            raise UserError(f"images of {image_size} px are too small for {len(blocks)} halvings; give 16 px or more")
        self.image_size = image_size
        self.sites = [
            Site(c, size, size, depth, len(blocks))
            for depth, (c, size) in enumerate(zip(channels, sizes, strict=True), start=1)
        ]
        self.blocks = nn.ModuleList(blocks)
        placed = regularizers.build_all(reg, self.sites)
        self.regs = nn.ModuleDict({str(depth): nn.ModuleList(placed[depth]) for depth in sorted(placed)})

    @property
    def features(self) -> int:
        """D, the length of an embedding."""
        return self.sites[-1].channels * self.sites[-1].height * self.sites[-1].width

    @property
    def regularizers(self) -> list[Regularizer]:
        """Every regularizer in it, from the shallowest site to the deepest."""
        return [reg for at_site in self.regs.values() for reg in at_site]

    def begin_step(self, progress: float, generator: torch.Generator | None = None) -> None:
        """Tell the regularizers that an optimizer step begins, at `progress` (0..1) of training."""
        for reg in self.regularizers:
            reg.begin_step(progress, generator)

    def forward(self, x: Tensor, guide: Any = None) -> Tensor:
        """(N, 3, S, S) to (N, D); `guide` reaches the regularizers and nothing else."""
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x)
            for reg in self.regs[str(depth)] if str(depth) in self.regs else ():
                x = reg(x, guide)
        return x.flatten(1)
