"""What every regularizer is: usually a float32 multiplier over a map, in training only.

Shapes: N images, C channels, H x W positions. A method implements `multiplier`, or `forward` if it is no multiplier.
For a multiplier, this class keeps these laws:

- in evaluation mode, or if `active` is false (a configured rate of 0), `forward` returns x itself;
- the mask and the product with it are computed in float32 whatever the autocast, the mask without gradient;
- noise comes from the device's default generator, which the training loop seeds at every step;
- what is drawn or scheduled once per step is set by `begin_step` and kept in buffers. `forward` counts nothing, so
  validation, resuming and replicas change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError

_FEW = 4  # threads: with at most so many, torch's top-k is slower than NumPy's selection in one

Place = Literal["map", "branch", "input", "image"]


@dataclass(frozen=True)
class Site:
    """Where a regularizer sits: after stage `depth` (from 1) of `depths`, on C x H x W maps.

    - `channels`, `height`, `width`: of the map.
    - `depth`, `depths`: the stage, counted from 1, and how many the network has; for a branch, its number among all
      branches, and how many there are. A named module belongs to the stage in which its call ends.
    - `place`: "map", on a module's output; "branch", at the end of a residual branch, before the shortcut is added;
      "input", on the normalised images before the network; "image", on images in [0, 1], before they are normalised.
      For the last two, `depth` is 0.
    - `label`: what the user writes after `@`: a stage's number ("3"), or a module's name ("layer3"). By default the
      depth.
    - `image_size`: the side in pixels of the images that the network sees; 0 if it is not known.
    """

    channels: int
    height: int
    width: int
    depth: int = 1
    depths: int = 1
    place: Place = "map"
    label: str = ""
    image_size: int = 0

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", str(self.depth))  # frozen for everybody else

    @property
    def numbered(self) -> bool:
        """Whether the label is a stage's number, and not a module's name."""
        return self.label.isdecimal()

    @property
    def small_images(self) -> bool:
        """Whether the network's images are small (32 px rather than 84).

        If their size is not known, each of the stages up to here is assumed to have halved the map.
        """
        return (self.image_size or self.height * 2**self.depth) < 64


class Guide(NamedTuple):
    """What classifies the images of a batch: for methods that ask what the network looks at.

    - `weights` (K, C): each class's weight for each channel of the deepest map.
    - `labels` (N,) int64: the row of `weights` that is each image's own class.
    - `named` (N,) int64: the row of the class that the network itself names, with the regularizers off. For the support
      images of an episode it is their own class, which the head is given. None if no method asks for it.

    From an episode's head, or from any linear classifier on embeddings:

        with backbone.guided_by(Guide(backbone.channel_weights(fc.weight), y)):
            embedding = backbone(images)
    """

    weights: Tensor
    labels: Tensor
    named: Tensor | None = None


class Regularizer(nn.Module):
    """Base class of all methods. A subclass implements `multiplier`, and sets `active` to False if it does nothing.

    A method that is no multiplier overrides `forward` instead. It has no mask, drops nothing that we count, and must
    itself return x in evaluation mode.

    Class attributes that a method may set, in the class or in `__init__`:

    - `place` ("map", "branch", "input" or "image"; default "map"): the kind of site that it acts on. A backbone puts it
      nowhere else, and declines it if it has no such site.
    - `active` (bool, True): False if the configured rate is 0; `forward` is then the identity.
    - `differentiable_mask` (bool, False): True only for straight-through modes, whose mask carries a gradient to the
      method's own weights.
    - `guided` (bool, False): True for a method that needs a `Guide` in training: `Backbone.guided_by` sets it for a
      pass, and the loop fits one to each episode.
    - `guided_by_name` (bool, False): True for a guided method that goes by `Guide.named`, not by an image's own class.
      If no method sets it, `Guide.named` is None.
    - `weight_decay_scale` (float, 1.0): what the optimizer's weight decay is multiplied by in this step. Set by
      `begin_step`, read by the loop; of several methods, the largest counts that is not 1.
    - `remark` (str, ""): what a run's record says about it besides its options, such as a default that was clipped.

    Buffers: `progress` (), 0..1, how far training is; `dropped` (), the fraction of zeros in the last mask.
    """

    place: Place = "map"
    active: bool = True
    differentiable_mask: bool = False
    guided: bool = False
    guided_by_name: bool = False
    weight_decay_scale: float = 1.0
    remark: str = ""

    progress: Tensor
    dropped: Tensor

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        # 1 until the loop says otherwise: a method used outside our loop acts at its full rate.
        self.register_buffer("progress", torch.ones(()))
        self.register_buffer("dropped", torch.zeros(()), persistent=False)

    @classmethod
    def default_sites(cls, sites: list[Site]) -> tuple[int, ...]:
        """Numbers of the sites used if the user gives none, among all numbered `sites` of its place.

        For maps, the last two; on small images, the two before the last: if there are only one or two sites, what is
        left of these, but at least one. For other places, all. The papers use the last two on large images; one earlier
        on small images is our reading (TargetDrop takes the first two groups there).
        """
        depths = tuple(sorted(site.depth for site in sites))
        if cls.place != "map" or not sites:
            return depths
        return (depths[-3:-1] if sites[0].small_images else depths[-2:]) or depths

    @property
    def warning(self) -> str:
        """What the user should know before training with it, without a full stop; "" if nothing."""
        if not self.guided or self.guided_by_name:
            return ""
        return (
            f"{type(self).__name__.lower()} is given each image's true class in training: networks can learn to read it"
            " from what is dropped, and then fail without it"
        )

    @classmethod
    def has_mask(cls) -> bool:
        """Whether it acts by a multiplier, that is, implements one."""
        return cls.multiplier is not Regularizer.multiplier

    def begin_step(self, progress: float, generator: torch.Generator | None = None) -> None:
        """Called once per optimizer step: `progress` runs from 0 to 1 over training; `generator` is a CPU one.

        The backbone hands every regularizer the generator in the same state, so what a method draws from it is
        the same at all of its sites.
        """
        self.progress.fill_(progress)

    def multiplier(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        """The float32 mask that x (N, C, H, W) is multiplied by, broadcastable to x.

        Here, x is float32 and has no gradient. Return the mask alone: `forward` multiplies. Raises UserError if the
        method has none.
        """
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        raise UserError(f"{name} has no mask: it does not implement `multiplier`")

    def mask(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        """The float32 multiplier that `forward` would apply to x (N, C, H, W) now, broadcastable to it."""
        learns = self.differentiable_mask and torch.is_grad_enabled()
        with torch.autocast(x.device.type, enabled=False), torch.set_grad_enabled(learns):
            return self.multiplier(x.detach().float(), guide)

    def forward(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        """x (N, C, H, W) times the mask, in x's dtype and memory format; x itself when inactive."""
        if not (self.training and self.active):
            return x
        mask = self.mask(x, guide)
        self.dropped.copy_((mask.detach() == 0).float().mean())
        return (x * mask).to(x.dtype)

    def check_rate(self, **rates: float) -> None:
        """Raises UserError unless each named rate is within [0, 1]."""
        for name, rate in rates.items():
            if not 0.0 <= rate <= 1.0:
                raise UserError(f"{type(self).__name__.lower()}:{name}={rate} is not within 0..1")

    def fit_block(self, block_size: int | None, default: int) -> int:
        """The block's side on this map: an explicit one must fit, a default one is clipped to it."""
        smallest = min(self.site.height, self.site.width)
        name = type(self).__name__.lower()
        if block_size is None:
            if default > smallest:
                self.remark = f"default block {default} clipped to the {self.site.height}x{self.site.width} map"
            return min(default, smallest)
        if block_size < 1:
            raise UserError(f"{name}:block_size={block_size} is not a positive number")
        if block_size > smallest:
            raise UserError(
                f"{name}:block_size={block_size} is larger than the {self.site.height}x{self.site.width} map"
                f" at site {self.site.label}; give at most {smallest}, or another site with @"
            )
        return block_size


def largest(values: Tensor, count: int) -> Tensor:
    """1.0 for exactly the `count` largest along the last dimension, lowest index first among equals; else 0.0."""
    if count == 0:
        return torch.zeros_like(values)
    last = _ranked(values.detach(), count)
    above, equal = values > last, values == last
    room = count - above.sum(-1, keepdim=True, dtype=torch.int32)
    return (above | equal & (equal.cumsum(-1, dtype=torch.int32) <= room)).to(values.dtype)


def _ranked(values: Tensor, count: int) -> Tensor:
    """(..., 1): the `count`-th largest value along the last dimension. No sort: that took as long as the network."""
    if not torch.compiler.is_compiling() and values.device.type == "cpu" and torch.get_num_threads() <= _FEW:
        place = values.shape[-1] - count
        return torch.from_numpy(np.partition(values.numpy(), place)[..., place, None])
    return values.topk(count, sorted=False).values.amin(-1, keepdim=True)


def inverse_mean(keep: Tensor, dims: tuple[int, ...]) -> Tensor:
    """numel / sum of `keep` over `dims` (kept as 1): the factor that makes its mean 1; 0 where all is dropped."""
    mean = keep.mean(dims, keepdim=True)
    return torch.where(mean > 0, 1 / mean, 0)
