"""ResNet-12 as MetaOptNet has it (Lee et al., CVPR 2019): four residual blocks of 64/160/320/640 channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones._blocks import Blocks
from fewshot.backbones._pool import halve


class _Block(nn.Module):
    """Three times 3x3 convolution and batch norm, a 1x1 shortcut, LeakyReLU 0.1, 2x2 max pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.conv3, self.norm3 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.branch = nn.Identity()  # the site of what acts on the branch, before the shortcut is added
        self.shortcut, self.shortcut_norm = _conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) to (N, outputs, S // 2, S // 2)."""
        out = F.leaky_relu(self.norm1(self.conv1(x)), 0.1, inplace=True)
        out = F.leaky_relu(self.norm2(self.conv2(out)), 0.1, inplace=True)
        out = self.branch(self.norm3(self.conv3(out)))
        out = out + self.shortcut_norm(self.shortcut(x))
        # The maximum and LeakyReLU commute exactly; pooling first leaves it a quarter of the memory to cross.
        return F.leaky_relu(halve(out), 0.1, inplace=True)


def _conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="leaky_relu")
    return conv


class ResNet12(Blocks):
    """84 px images to 640 x 5 x 5 = 16,000 numbers, or with `pool` to their 640 averages; 12,424,320 parameters.

    Its own regularization (`reg="original"`): Dropout 0.1 after blocks 1 and 2, DropBlock with
    keep probability 0.9 after blocks 3 and 4.
    """

    original = "dropout@1,2:drop_prob=0.1+dropblock@3,4:drop_prob=0.1"

    def __init__(self, image_size: int = 84, *, pool: bool = False) -> None:
        channels = [64, 160, 320, 640]
        pairs = zip([3, *channels], channels, strict=False)
        super().__init__(image_size, [_Block(inputs, outputs) for inputs, outputs in pairs])
        self.pool = pool

    def embedding(self, maps: list[Tensor]) -> Tensor:
        """(N, features): block 4's map, flat or averaged over its positions."""
        return maps[3].mean((2, 3)) if self.pool else maps[3].flatten(1)
