"""What every backbone is: blocks in a row, each followed by the regularizers of its site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fewshot import regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Guide, Place, Regularizer, Site


class Backbone(nn.Module):
    """Images (N, 3, S, S), normalised, to embeddings (N, features).

    A subclass gives its blocks and, for each, the channels and the side of the map that it leaves.
    Site i is the output of block i, counted from 1. It may override `embedding` and `features`.

    Residual blocks are called with a function besides, where there is something to do to their branch before
    the shortcut is added; `branches` then gives the channels and the side of each block's branch. The input is
    site 0, before and after it is normalised. What acts on branches, or there, says so by its `place`, and no
    other regularizer is there.
    """

    original: str = "none"
    """What `original` stands for in `reg`: the regularization that the network was published with."""

    def __init__(
        self,
        image_size: int,
        reg: str,
        blocks: list[nn.Module],
        maps: list[tuple[int, int]],
        branches: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        if maps[-1][1] < 1:
            least = 2 ** len(blocks)
            raise UserError(f"images of {image_size} px are too small for this network; give {least} or more")
        self.image_size = image_size

        def sites_of(place: Place, sizes: Sequence[tuple[int, int]], first: int = 1) -> list[Site]:
            return [Site(c, side, side, depth, len(blocks), place) for depth, (c, side) in enumerate(sizes, first)]

        self.sites = sites_of("map", maps)
        self.blocks = nn.ModuleList(blocks)
        elsewhere = sites_of("branch", branches)
        for place in ("input", "image"):
            elsewhere += sites_of(place, [(3, image_size)], first=0)
        placed = regularizers.build_all(reg, self.sites + elsewhere, self.original)
        self.regs = nn.ModuleDict({str(depth): nn.ModuleList(placed[depth]) for depth in sorted(placed)})

    @property
    def features(self) -> int:
        """Length of an embedding."""
        return self.sites[-1].channels * self.sites[-1].height * self.sites[-1].width

    @property
    def regularizers(self) -> list[Regularizer]:
        """Every regularizer in it, from the shallowest site to the deepest."""
        return [reg for at_site in self.regs.values() for reg in at_site]

    @property
    def guided(self) -> bool:
        """Whether a regularizer in it needs a guide in training."""
        return any(reg.guided for reg in self.regularizers)

    def begin_step(self, progress: float, generator: torch.Generator | None = None) -> None:
        """Tell the regularizers that an optimizer step begins, at `progress` (0..1) of training.

        Each gets a generator in the same state, seeded by one draw from `generator` (by default torch's own),
        so that all sites agree on what a method draws once a step, whatever else is placed between them.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        for reg in self.regularizers:
            reg.begin_step(progress, torch.Generator().manual_seed(seed))

    @property
    def weight_decay_scale(self) -> float:
        """What this step's weight decay is multiplied with: the largest that a regularizer asks for."""
        return max((reg.weight_decay_scale for reg in self.regularizers), default=1.0)

    def on_images(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] after what regularizes images before they are normalised."""
        return _apply(self._at(0, "image"), images, None)

    _guide: Guide | None = None

    @contextmanager
    def guided_by(self, guide: Guide | None) -> Iterator[None]:
        self._guide = guide
        try:
            yield
        finally:
            self._guide = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, features); `guide` reaches the regularizers and nothing else."""
        guide = self._guide
        x = _apply(self._at(0, "input"), x, guide)
        maps = []
        for depth, block in enumerate(self.blocks, start=1):
            within = self._at(depth, "branch")
            x = block(x, partial(_apply, within, guide=guide)) if within else block(x)
            x = _apply(self._at(depth, "map"), x, guide)
            maps.append(x)
        return self.embedding(maps)

    def _at(self, depth: int, place: Place) -> list[Regularizer]:
        """The regularizers at one site, in the order written."""
        here = self.regs[str(depth)] if str(depth) in self.regs else ()
        return [reg for reg in here if reg.place == place]

    def embedding(self, maps: list[Tensor]) -> Tensor:
        """(N, features) from every block's map (N, C, H, W) after its regularizers: the last one, flat."""
        return maps[-1].flatten(1)

    def channel_weights(self, weights: Tensor) -> Tensor:
        """A linear classifier's weights (..., features) on embeddings -> (..., C), on the deepest map's channels.

        Averaged over the positions of the map; what belongs to another map is left out. With them, the sum
        over channels of weight times map is the class activation map.
        """
        deepest = self.sites[-1]
        return weights.unflatten(-1, (deepest.channels, deepest.height * deepest.width)).mean(-1)


def _apply(regs: list[Regularizer], x: Tensor, guide: Guide | None) -> Tensor:
    """x (N, C, H, W) after one regularizer and then the next."""
    for reg in regs:
        x = reg(x, guide)
    return x


def halvings(image_size: int, channels: list[int]) -> list[tuple[int, int]]:
    """(channels, side) of each map where every block halves the side (floor)."""
    return [(count, image_size // 2**depth) for depth, count in enumerate(channels, start=1)]
