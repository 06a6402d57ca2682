"""ResNet-18 with a stem for small images: the network that the papers train on CIFAR and SVHN."""

from __future__ import annotations

from fewshot.backbones._groups import ResNet


class ResNet18(ResNet):
    """32 px images to 512 numbers; 11,168,832 parameters.

    He et al.'s ResNet-18 (CVPR 2016, table 1) with a 3x3 convolution instead of its 7x7 stem, and no pooling there.
    """

    def __init__(self, image_size: int = 32) -> None:
        super().__init__(image_size, (64, 128, 256, 512), (2, 2, 2, 2), "B")
