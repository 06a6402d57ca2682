"""ResNet-110 for small images (He et al., CVPR 2016, sec. 4.2): three groups of 18 blocks, 16/32/64 channels."""

from __future__ import annotations

from fewshot.backbones._groups import ResNet


class ResNet110(ResNet):
    """32 px images to 64 numbers; 1,727,312 parameters. Shortcuts without parameters (the paper's option A)."""

    def __init__(self, image_size: int = 32) -> None:
        super().__init__(image_size, (16, 32, 64), (18,) * 3, "A")
