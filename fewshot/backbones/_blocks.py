"""A backbone that is a row of blocks, as ours are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot.backbones._base import Backbone


class Blocks(Backbone):
    """Blocks in a row; site i is the output of block i, counted from 1.

    A subclass makes the blocks, each of which turns a map (N, C, H, W) into another, and may override `embedding`.
    """

    def __init__(self, image_size: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__(image_size)
        self.blocks = nn.ModuleList(blocks)
        self.stages = tuple(f"blocks.{number}" for number in range(len(blocks)))

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, features)."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return self.embedding(maps)

    def embedding(self, maps: list[Tensor]) -> Tensor:
        """(N, features) from every block's map (N, C, H, W) after its regularizers: here the last map, flattened."""
        return maps[-1].flatten(1)
