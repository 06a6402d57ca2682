"""AutoAugment (Cubuk et al., CVPR 2019), from torchvision: each image is changed by a learned pair of operations."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2

from fewshot.regularizers._base import Guide, Regularizer, Site


class AutoAugment(Regularizer):
    """`policy`: imagenet (the default: mini-ImageNet's images come from it), cifar10 or svhn, the paper's three.

    It acts in training, on support and query alike, after the other augmentation and before images are normalised.
    Each image, rounded to 8 bits, gets one of the policy's pairs of operations, drawn for it alone, with
    torchvision.transforms.v2.AutoAugment's defaults (nearest neighbour, black where nothing is left to show).

    It is no multiplier, so it has no mask and drops nothing. It is neither differentiated nor compiled. torchvision
    draws from the CPU's generator, wherever the images are.
    """

    place = "image"

    def __init__(self, site: Site, *, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet") -> None:
        super().__init__(site)
        self.policy = policy
        self.transform = v2.AutoAugment(AutoAugmentPolicy(policy))

    @torch.no_grad()
    def forward(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] -> changed ones, in x's dtype and memory format; x itself in evaluation."""
        if not self.training:
            return x
        with torch.autocast(x.device.type, enabled=False):  # in bf16, products of positions move pixels
            # On the CPU: with single images, a GPU would wait for each of torchvision's small steps.
            changed = [self.transform(image) for image in (x * 255).round().to(torch.uint8).cpu()]
        return torch.empty_like(x).copy_(torch.stack(changed)).div_(255)

    def extra_repr(self) -> str:
        return f"policy={self.policy}"
