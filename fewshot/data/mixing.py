"""mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): two images of a batch in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fewshot.core.compute import near


class Mixed(NamedTuple):
    """A batch of B images, each mixed with another of them."""

    images: Tensor
    """(B, 3, S, S)."""
    order: Tensor
    """(B,) int64: the image that is mixed into each."""
    share: float
    """The share of itself that each image keeps, 0..1: one number for the whole batch."""


@dataclass(frozen=True)
class Mixing:
    """`mixup`: images are blended, with a share drawn from Beta(mixup, mixup). `cutmix`: a square of one image is put
    into another, with an area drawn from Beta(cutmix, cutmix). If both are on, each batch gets one of the two, with
    equal probability. 0 switches either off; at least one is positive.
    """

    mixup: float
    cutmix: float

    def __call__(self, batch: Tensor, draw: np.random.Generator) -> Mixed:
        """Mix a batch (B, 3, S, S) with itself in another order."""
        ways = [way for way, on in (("mixup", self.mixup), ("cutmix", self.cutmix)) if on]
        way = ways[draw.integers(len(ways))]
        alpha = self.mixup if way == "mixup" else self.cutmix
        share = float(draw.beta(alpha, alpha))
        order = near(draw.permutation(len(batch)), batch.device)
        if way == "mixup":
            return Mixed(batch.lerp(batch[order], 1 - share), order, share)
        size = batch.shape[2]
        top, bottom, left, right = _square(size, share, draw)
        mixed = batch.clone()
        mixed[:, :, top:bottom, left:right] = batch[order][:, :, top:bottom, left:right]
        return Mixed(mixed, order, 1 - (bottom - top) * (right - left) / size**2)


def _square(size: int, share: float, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """top, bottom, left, right of a square of area 1 - share around a uniform centre, clipped to the image."""
    half = size * (1 - share) ** 0.5 / 2
    edges = [(int(max(0, c - half)), int(min(size, c + half))) for c in draw.integers(size, size=2)]
    return (*edges[0], *edges[1])
