"""RandAugment (Cubuk et al., NeurIPS 2020): each image is changed by a few operations, all of one strength.

torchvision's, with its defaults otherwise (nearest neighbour, black where nothing is left to show): 14 operations,
drawn uniformly for each image, with replacement; signed ones are turned around with probability 1/2.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchvision.transforms import v2

STRENGTHS = 31  # of the magnitude: 0 .. 30


class RandAugment:
    """`operations` for each image, of strength `magnitude`, 0..30. The paper's N and M."""

    def __init__(self, operations: int, magnitude: int) -> None:
        self.transform = v2.RandAugment(operations, magnitude, STRENGTHS)

    @torch.no_grad()
    def __call__(self, images: Tensor, seeds: Iterable[int]) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], rounded to 8 bits, to such images; each draws from a seed of its own.

        torchvision draws from the CPU's default generator, whose state is put back.
        """
        changed = []
        with torch.random.fork_rng(devices=[]):
            # On the CPU: of single images a GPU would wait for each of torchvision's small steps.
            for image, seed in zip((images * 255).round().to(torch.uint8).cpu(), seeds, strict=True):
                torch.default_generator.manual_seed(seed)  # and no device's: those are the masks'
                changed.append(self.transform(image))
        return torch.empty_like(images).copy_(torch.stack(changed)).div_(255)
