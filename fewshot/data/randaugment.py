"""RandAugment (Cubuk et al., NeurIPS 2020): each image is changed by a few operations, all of one strength.

torchvision's, with its defaults for all else (nearest neighbour, black where nothing is left to show): 14 operations,
drawn uniformly for each image, with replacement; signed ones are reversed with probability 1/2.
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
        """Change images (B, 3, S, S) in [0, 1], which are rounded to 8 bits; each draws from its own seed.

        torchvision draws from the CPU's default generator; its state is restored.
        """
        changed = []
        with torch.random.fork_rng(devices=[]):
            # On the CPU: image by image, a GPU would wait for each of torchvision's small steps.
            for image, seed in zip((images * 255).round().to(torch.uint8).cpu(), seeds, strict=True):
                torch.default_generator.manual_seed(seed)  # and no device's: those are for the masks
                changed.append(self.transform(image))
        return torch.empty_like(images).copy_(torch.stack(changed)).div_(255)
