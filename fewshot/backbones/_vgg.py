"""VGG with batch norm (Simonyan & Zisserman, ICLR 2015), as it is trained on CIFAR: without hidden linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fewshot.backbones._groups import Groups

WIDTHS = (64, 128, 256, 512, 512)


class VGG(Groups):
    """Five groups of 3x3 convolutions with batch norm and ReLU, each of which ends in a 2x2 max pool."""

    def __init__(self, image_size: int, layers: Sequence[int]) -> None:
        groups, inputs = [], 3
        for width, count in zip(WIDTHS, layers, strict=True):
            blocks: list[nn.Module] = []
            for _ in range(count):
                layer = nn.Conv2d(inputs, width, 3, padding=1)
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                blocks += [layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            groups.append([*blocks, nn.MaxPool2d(2)])
        super().__init__(image_size, nn.Identity(), groups)
