"""Conv-4 (64F): the four-block network of Matching Networks (Vinyals et al., 2016) and ProtoNet."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones._blocks import Blocks
from fewshot.backbones._pool import halve
from fewshot.core.errors import UserError


class _Block(nn.Module):
    """3x3 convolution without bias, batch norm, ReLU, 2x2 max pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.normal_(self.conv.weight, 0.0, math.sqrt(2.0 / (9 * outputs)))

    def forward(self, x: Tensor) -> Tensor:
        # The maximum and ReLU commute exactly; pooling first leaves ReLU a quarter of the memory to cross.
        return F.relu(halve(self.norm(self.conv(x))), inplace=True)


class Conv4(Blocks):
    """4 blocks of 64 channels: 84 px images to 64 x 5 x 5 = 1,600 numbers; 112,832 parameters.

    `channels`: of every block. MAML uses 32 on mini-ImageNet (Finn et al., ICML 2017), to overfit less.
    """

    def __init__(self, image_size: int = 84, *, channels: int = 64) -> None:
        if channels < 1:
            raise UserError(f"channels={channels}: give at least 1")
        widths = [channels] * 4
        pairs = zip([3, *widths], widths, strict=False)
        super().__init__(image_size, [_Block(inputs, outputs) for inputs, outputs in pairs])
