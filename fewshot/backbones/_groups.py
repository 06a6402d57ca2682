"""The networks of plain image classification: a stem, groups of blocks, an average over positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones._base import Backbone


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size, or halves it; He et al.'s initialisation (fan out)."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Groups(Backbone):
    """A stem and groups of blocks in a row; site i is the output of group i, counted from 1, as the papers name them.

    The embedding is the last group's map after `last` (batch norm and ReLU, if blocks begin with them), averaged over
    its positions. Regularizers that act on branches act in blocks with a submodule `branch`: for them, site i is the
    i-th such block.
    """

    def __init__(
        self, image_size: int, stem: nn.Module, groups: Sequence[Sequence[nn.Module]], last: nn.Module | None = None
    ) -> None:
        super().__init__(image_size)
        self.stem = stem
        self.groups = nn.ModuleList(nn.Sequential(*blocks) for blocks in groups)
        self.last = last or nn.Identity()
        self.stages = tuple(f"groups.{number}" for number in range(len(groups)))
        self.branches = tuple(
            f"groups.{group}.{number}.branch"
            for group, blocks in enumerate(groups)
            for number, block in enumerate(blocks)
            if hasattr(block, "branch")
        )

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, channels of the last group)."""
        x = self.stem(x)
        for group in self.groups:
            x = group(x)
        return self.last(x).mean((2, 3))


class Basic(nn.Module):
    """Two 3x3 convolutions with batch norm, ReLU after the sum (He et al., CVPR 2016).

    Where the shape changes, the shortcut is subsampled and padded with zeros ("A"), or it is a 1x1 convolution with
    batch norm ("B").
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.branch = nn.Identity()  # the site of what acts on the branch, before the shortcut is added
        self.stride, self.more = stride, outputs - inputs
        self.shortcut: nn.Module | None = None
        if shortcut == "B" and (stride > 1 or self.more):
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, S / stride, S / stride)."""
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.branch(self.norm2(self.conv2(out)))
        return F.relu(out + self._short(x), inplace=True)

    def _short(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return self.shortcut(x)
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)) if self.more else x


class ResNet(Groups):
    """Groups of `Basic` blocks on a 3x3 stem without pooling: He et al.'s networks for CIFAR."""

    def __init__(self, image_size: int, widths: Sequence[int], blocks: Sequence[int], shortcut: str) -> None:
        stem = nn.Sequential(conv(3, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        groups, inputs = [], widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            strides = [2 if number else 1] + [1] * (count - 1)
            pairs = zip([inputs] + [width] * (count - 1), strides, strict=True)
            groups.append([Basic(before, width, stride, shortcut) for before, stride in pairs])
            inputs = width
        super().__init__(image_size, stem, groups)
