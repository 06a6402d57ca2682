"""A network from a collection such as timm: without its classifier, perhaps with the weights that come with it."""

from __future__ import annotations

import difflib
import importlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from fewshot.backbones import _weights
from fewshot.backbones._dryrun import dry_run
from fewshot.backbones._foreign import Foreign
from fewshot.core.errors import UserError
from fewshot.data.channels import Triple

Statistics = Literal["auto", "dataset", "weights"]
SMALLEST, LARGEST = 16, 1024  # pixels, to which images may be resized
_STAGES = 4  # site numbers that a network has, if it says what its stages are


class Collected(Foreign):
    """What timm's and torchvision's networks have in common. A subclass has their options, and finds the network.

    `label`: the network's full name, `timm:resnet18`. `removed`: the names of its classifier and of whatever else was
    removed. `published`: mean and standard deviation of the images that its published weights were trained on.
    """

    positional = "name"

    def __init__(
        self,
        image_size: int,
        network: nn.Module,
        label: str,
        *,
        removed: Sequence[str],
        published: tuple[Triple, Triple],
        published_size: int,
        stages: Iterable[str],
        size: int | None,
        pretrained: bool,
        weights: str | None,
        normalise: Statistics,
    ) -> None:
        if pretrained and weights is not None:
            raise UserError(f"{label}: pretrained=true and weights={weights} contradict one another; give one of them")
        super().__init__(image_size, network, size=size, weights=weights)
        self.label, self.pretrained, self.removed = label, pretrained, removed
        as_published = normalise == "weights" or (normalise == "auto" and (pretrained or weights is not None))
        self.normalisation = published if as_published else None
        try:
            self.stages = self._with_maps(stages)
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"{label} does not take images of {size or image_size} px ({_weights.first_line(error)}); resize them:"
                f" {label},size={published_size}"
            ) from None
        package = importlib.import_module(label.partition(":")[0])
        self.facts["network"] = {
            "name": label, "package": f"{package.__name__} {package.__version__}", "input_size": size or image_size,
            "normalisation": "of the weights" if as_published else "of the data set", "removed": ", ".join(removed),
        }  # fmt: skip

    def _with_maps(self, names: Iterable[str]) -> tuple[str, ...]:
        """The last few of these modules that give a map (N, C, H, W)."""
        modules = dict(self.network.named_modules())
        watched = {name: modules[name] for name in names if name in modules}
        seen = dry_run(self, self.embed, watched, self.image_size)
        return tuple(name for name in watched if seen.gives_map(name))[-_STAGES:]

    def begin(self) -> None:
        """See Backbone.begin: the published weights, or those of the user's file."""
        super().begin()
        if not self.pretrained:
            return
        try:
            state, source = self.published_weights()
        except MemoryError:
            raise
        except Exception as error:  # however their download fails
            raise UserError(
                f"{self.label},pretrained=true: its weights could not be had ({_weights.first_line(error)}); without a"
                f" connection, give a file that you have: {self.label},weights=FILE"
            ) from None
        _weights.fill(self.network, state, self.removed, f"{self.label},pretrained=true")
        self.facts["weights"] = {"from": source, "sha256": _weights.digest(self.network.state_dict())}

    @abstractmethod
    def published_weights(self) -> tuple[Mapping[str, Tensor], str]:
        """The weights that come with the network, and their full name. Raises any error if they cannot be had."""


def not_there(collection: str, name: str, names: Sequence[str], where: str) -> UserError:
    """The error for a name that a collection of a thousand does not have."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    nearest = f"nearest: {', '.join(near)}; " if near else ""
    return UserError(f"{collection} has no network {name!r}; {nearest}{where} names all")


def check_size(label: str, size: int | None) -> None:
    """Raise UserError for a side to which images may not be resized."""
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise UserError(f"{label},size={size}: give {SMALLEST} to {LARGEST} pixels")


def optional(package: str, extra: str) -> Any:
    """A package that only some users need. If it is not installed, raises UserError that names the extra to install."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UserError(f"{package} is not installed: pip install 'fewshot[{extra}]'") from None
