"""ResNet-56 for small images (He et al., CVPR 2016, sec. 4.2): three groups of 9 blocks, 16/32/64 channels."""

from __future__ import annotations

from fewshot.backbones._groups import ResNet


class ResNet56(ResNet):
    """32 px images to 64 numbers; 852,368 parameters. Shortcuts without parameters (the paper's option A)."""

    def __init__(self, image_size: int = 32) -> None:
        super().__init__(image_size, (16, 32, 64), (9,) * 3, "A")
