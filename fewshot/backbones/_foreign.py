"""A backbone around a network that knows nothing about fewshot."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import _weights
from fewshot.backbones._base import Backbone

_IMAGE_SIZE = ("image_size", "img_size")  # what a network may call the side of the images that it is for


class Foreign(Backbone):
    """Any module that maps images (N, 3, S, S) to vectors (N, D), or to a map (N, C, H, W), which is flattened.

        class MyNet(Foreign):
            def __init__(self, image_size: int = 84, *, width: int = 32) -> None:
                super().__init__(image_size, SomebodysNet(width), stages=("layer1", "layer2", "layer3"))

    It is then built by its dotted name, `--backbone my_pkg.MyNet:width=64`. Users name modules as the network does:
    `--reg targetdrop@layer3`. `stages`: the modules that site numbers stand for; the last one gives the deepest map.
    `size`: the side in pixels to which images are resized before the network sees them (bilinear, antialiased); by
    default they are not resized. `weights`: a file with the weights that training starts from.
    """

    def __init__(
        self,
        image_size: int,
        network: nn.Module,
        stages: Sequence[str] = (),
        *,
        size: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__(image_size)
        self.network = network
        self.stages = tuple(stages)
        self.size = None if size == image_size else size
        self.weights = weights
        self.removed: Sequence[str] = ()
        """Modules removed from the network, such as its classifier: a file may still have their weights."""

    @property
    def input_size(self) -> int:
        """See Backbone.input_size."""
        return self.size or self.image_size

    @property
    def root(self) -> nn.Module:
        """The network."""
        return self.network

    def embed(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) to (N, features)."""
        if self.size is not None:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        embedding = self.network(x)
        return embedding.flatten(1) if isinstance(embedding, Tensor) else embedding  # which `place` refuses

    def begin(self) -> None:
        """See Backbone.begin: the weights of the user's file."""
        if self.weights is not None:
            state, digest = _weights.read(self.weights)
            _weights.fill(self.network, state, self.removed, f"weights={self.weights}")
            self.facts["weights"] = {"from": self.weights, "sha256": digest}


@functools.cache
def adopt(network: type) -> type[Foreign] | None:
    """The backbone around a user's class that is a module and derives from none of ours; None for any other class.

    Its options are the parameters of the class, and `Foreign`'s `size` and `weights`. A parameter `image_size` or
    `img_size` gets the side that the network will see.
    """
    if not issubclass(network, nn.Module) or any(base.__module__.startswith("fewshot.") for base in network.__mro__):
        return None
    constructor: Any = getattr(network, "__init__")  # noqa: B009  (that of this very class)
    own = [p for p in inspect.signature(network).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    try:
        hints = typing.get_type_hints(constructor)
    except NameError:  # of names that the class's module imports for type checkers only
        hints = {}
    sized = [p.name for p in own if p.name in _IMAGE_SIZE]
    options = {p.name: p for p in own if p.name not in sized}
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("size", "weights")]
    added = [p for p in added if p.name not in options]

    def __init__(self: Foreign, image_size: int = 84, **given: Any) -> None:
        ours = {p.name: given.pop(p.name, None) for p in added}
        side = ours.get("size") or image_size
        Foreign.__init__(self, image_size, network(**given, **dict.fromkeys(sized, side)), **ours)

    def typed(p: inspect.Parameter) -> Any:
        return hints.get(p.name, str if p.default in (p.empty, None) else type(p.default))

    theirs = [p.replace(kind=p.KEYWORD_ONLY, annotation=typed(p)) for p in options.values()]
    image_size = inspect.Parameter("image_size", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=84)
    shown: Any = __init__
    shown.__signature__ = inspect.Signature([image_size, *theirs, *added])
    kinds = {"size": int | None, "weights": str | None}
    shown.__annotations__ = {p.name: typed(p) for p in theirs} | {p.name: kinds[p.name] for p in added}
    about = {"__module__": network.__module__, "__doc__": network.__doc__, "__init__": __init__}
    return type(network.__name__, (Foreign,), about)
