"""What regularizers remove from the shown images at the end of training.

Shapes: N images shown, C channels, H x W positions of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fewshot import backbones
from fewshot.core.components import Spec
from fewshot.core.errors import UserError
from fewshot.evaluation.inspection.scenes import Scene, guide, outputs
from fewshot.model import Model
from fewshot.regularizers import FAMILY, Guide, Regularizer, Site
from fewshot.regularizers import expand as single

_BEFORE = ("input", "image")  # the places before all blocks: site 0
_TRIES = 100  # steps that are tried: a method that skips some is shown in the first that it does not skip


def expand(reg: str, original: str, site: int | str | None = None) -> list[Spec]:
    """The single regularizers of a `+`-joined text, `original` spelled out; those without `@` are put at `site`."""
    specs = single(reg, original)
    if site is None:
        return specs
    return [spec if spec.sites or _place(spec) in _BEFORE else replace(spec, sites=(site,)) for spec in specs]


def replace_regularizers(model: Model, backbone: str, specs: Sequence[Spec]) -> None:
    """Give the model other regularizers; `backbone` describes its backbone. Raises UserError like `backbones.build`."""
    other = backbones.build(backbone, "+".join(map(str, specs)), model.backbone.image_size, begin=False)
    weights = model.backbone.state_dict()
    other.load_state_dict({name: w for name, w in weights.items() if not name.startswith("regs.")}, strict=False)
    model.backbone = other.eval()


def choose(model: Model, specs: Sequence[Spec], site: int | str | None) -> list[Regularizer]:
    """For each of the model's regularizers, as written, the one at the site that is shown.

    That is `site`; by default the deepest that all share on maps, else its own deepest; for the image, 0. Raises
    UserError if there is none, or if a method has no mask.
    """
    labels = [_labels(spec, model) for spec in specs]
    on_maps = [set(its) for spec, its in zip(specs, labels, strict=True) if _place(spec) == "map"]
    shared = set.intersection(*on_maps) if on_maps else set()
    chosen: list[Regularizer] = []
    for spec, its in zip(specs, labels, strict=True):
        its_shared = [label for label in its if label in shared] or its
        deepest = max(its_shared, key=lambda label: model.backbone.at(label)[0].site.depth)
        label = deepest if site is None or _place(spec) in _BEFORE else str(site)
        if label not in its:
            there = ", ".join(its)
            raise UserError(f"{spec} is not at site {label} but at {there}: give that --site, or --reg without @")
        before = sum(label in earlier for earlier in labels[: len(chosen)])  # a site keeps the order written
        reg = model.backbone.at(label)[before]
        if not reg.active:
            raise UserError(f"{spec} drops nothing, so there is no mask to draw: show another with --reg")
        chosen.append(reg)
    return chosen


def _place(spec: Spec) -> str:
    component, _ = FAMILY.check(spec)
    if not component.has_mask():
        raise UserError(f"{spec} works without a mask, so there is none to draw: leave it out with --reg")
    return component.place


def _labels(spec: Spec, model: Model) -> tuple[str, ...]:
    if _place(spec) in _BEFORE:
        return ("0",)
    method = FAMILY.find(spec.name)
    own = (reg.site.label for reg in model.backbone.regularizers if type(reg) is method)
    return tuple(map(str, spec.sites or dict.fromkeys(own)))


@dataclass(frozen=True)
class Masked:
    """One regularizer's masks over the shown images."""

    site: Site
    taken: Tensor
    """(N, C, H, W) in 0..1: see `taken_away`."""
    dropped: float
    """Fraction of the mask that is 0, over all shown images."""


def masks(model: Model, regs: Sequence[Regularizer], scene: Scene, seed: int) -> list[Masked]:
    """What each of the model's regularizers removes from the shown images at the end of training.

    Each draws by itself from `seed`, whatever the others draw.
    """
    guidance = guide(model, scene) if model.backbone.guided else None
    maps = outputs(model, regs, scene.shown)  # in evaluation mode a regularizer returns its input
    drawn = [_mask(reg, x, guidance, seed) for reg, x in zip(regs, maps, strict=True)]
    return [
        Masked(reg.site, taken_away(mask), (mask == 0).float().mean().item())
        for reg, mask in zip(regs, drawn, strict=True)
    ]


@torch.no_grad()
def _mask(reg: Regularizer, x: Tensor, guidance: Guide | None, seed: int) -> Tensor:
    """The multiplier (N, C, H, W) of the first step in which the method does anything."""
    for step in range(_TRIES):
        reg.begin_step(1.0, torch.Generator().manual_seed(seed + step))
        torch.manual_seed(seed + step)
        mask = reg.mask(x, guidance).expand_as(x)
        if (mask != 1).any():
            break
    return mask


def taken_away(mask: Tensor) -> Tensor:
    """What a multiplier (N, C, H, W) removes from each element: 1 - multiplier / the largest in its map; 1 everywhere
    in an empty map.

    1 where an element is dropped, 0 where it is kept, whatever the rescaling; in between where it is weakened.
    """
    peak = mask.amax((2, 3), keepdim=True)
    return torch.where(peak > 0, 1 - mask / peak, 1.0)


def one_view(taken: Tensor, channel: int | Literal["most"] | None) -> np.ndarray:
    """(N, H, W) of what is taken away (N, C, H, W): the mean over channels (None), one channel by its number, or
    for each image the channel that loses the most ("most"; the first among equals)."""
    if channel is None:
        return taken.mean(1).numpy()
    if channel == "most":
        most = taken.mean((2, 3)).argmax(1)
        return taken[torch.arange(len(taken)), most].numpy()
    if not 0 <= channel < taken.shape[1]:
        raise UserError(f"--channel {channel}: a mask here has {taken.shape[1]}; give less, or most")
    return taken[:, channel].numpy()
