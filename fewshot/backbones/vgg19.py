"""VGG-19 with batch norm for small images (after Simonyan & Zisserman, ICLR 2015)."""

from __future__ import annotations

from fewshot.backbones._vgg import VGG


class VGG19(VGG):
    """32 px images to 512 numbers; 20,035,392 parameters. A classifier is one linear layer on them."""

    def __init__(self, image_size: int = 32) -> None:
        super().__init__(image_size, (2, 2, 4, 4, 4))
