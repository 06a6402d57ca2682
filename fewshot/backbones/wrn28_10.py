"""WRN-28-10 (Zagoruyko & Komodakis, BMVC 2016): a wide residual network of 28 layers, ten times as wide."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones._groups import Groups, conv


class _Block(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; a 1x1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3)
        self.branch = nn.Identity()  # the site of what acts on the branch, before the shortcut is added
        self.shortcut = conv(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, S / stride, S / stride)."""
        active = F.relu(self.norm1(x))
        out = self.conv2(F.relu(self.norm2(self.conv1(active)), inplace=True))
        return self.branch(out) + (x if self.shortcut is None else self.shortcut(active))


class WRN2810(Groups):
    """32 px images to 640 numbers; 36,472,784 parameters in three groups of four blocks, 160/320/640 channels.

    Without the dropout that the paper has within blocks in some of its tables.
    """

    def __init__(self, image_size: int = 32) -> None:
        groups, inputs = [], 16
        for number, width in enumerate((160, 320, 640)):
            blocks = []
            for stride in (2 if number else 1, 1, 1, 1):
                blocks.append(_Block(inputs, width, stride))
                inputs = width
            groups.append(blocks)
        last = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        super().__init__(image_size, conv(3, 16, 3), groups, last)
