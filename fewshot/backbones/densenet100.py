"""DenseNet-100 with growth rate 12 (Huang et al., CVPR 2017): each layer sees the maps of all layers before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones._groups import Groups, conv

GROWTH = 12


class _Layer(nn.Module):
    """Batch norm, ReLU, 3x3 convolution to 12 channels; with `bottleneck`, after a 1x1 convolution to 48."""

    def __init__(self, inputs: int, bottleneck: bool) -> None:
        super().__init__()
        self.squeeze: nn.Module | None = None
        if bottleneck:
            self.squeeze = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv(inputs, 4 * GROWTH, 1))
            inputs = 4 * GROWTH
        self.norm, self.conv = nn.BatchNorm2d(inputs), conv(inputs, GROWTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + 12, H, W)."""
        before = x if self.squeeze is None else self.squeeze(x)
        return torch.cat([x, self.conv(F.relu(self.norm(before)))], 1)


class DenseNet100(Groups):
    """32 px images to 1,168 numbers; 6,967,952 parameters in three dense groups of 32 layers.

    `bottleneck` is the paper's DenseNet-BC (342 numbers, 765,732 parameters): 16 layers of two convolutions per group,
    and transitions that halve the channels.
    """

    def __init__(self, image_size: int = 32, *, bottleneck: bool = False) -> None:
        channels = 2 * GROWTH if bottleneck else 16
        stem, groups = conv(3, channels, 3), []
        for number in range(3):
            blocks: list[nn.Module] = []
            if number:
                kept = channels // 2 if bottleneck else channels
                transition = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), conv(channels, kept, 1), nn.AvgPool2d(2)]
                blocks, channels = [nn.Sequential(*transition)], kept
            for _ in range(16 if bottleneck else 32):
                blocks.append(_Layer(channels, bottleneck))
                channels += GROWTH
            groups.append(blocks)
        super().__init__(image_size, stem, groups, nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
