"""A backbone around a network that knows nothing of us."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fewshot.backbones._base import Backbone


class Foreign(Backbone):
    """Any module that maps images (N, 3, S, S) to vectors (N, D), or to a map (N, C, H, W), which is embedded flat.

        class MyNet(Foreign):
            def __init__(self, image_size: int = 84, *, width: int = 32) -> None:
                super().__init__(image_size, SomebodysNet(width), stages=("layer1", "layer2", "layer3"))

    It is then built by its dotted name, `--backbone my_pkg.MyNet:width=64`. Users name modules as the network does:
    `--reg targetdrop@layer3`. `stages` names the modules that site numbers stand for, and whose last one gives the
    deepest map.
    """

    def __init__(self, image_size: int, network: nn.Module, stages: Sequence[str] = ()) -> None:
        super().__init__(image_size)
        self.network = network
        self.stages = tuple(stages)

    @property
    def root(self) -> nn.Module:
        """The network."""
        return self.network

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, features)."""
        return self.network(x).flatten(1)
