"""Backbones: images to embeddings, with regularizers at named sites. One file per network.

To add yours, derive from `Blocks`, `Foreign` or `Backbone` (its docstring explains how). If you name a module of yours
that is none of these, `Foreign` wraps it.
"""

from __future__ import annotations

from fewshot.backbones._base import Backbone
from fewshot.backbones._blocks import Blocks
from fewshot.backbones._foreign import Foreign, adopt
from fewshot.backbones._sync import sync_batch_norm
from fewshot.core.components import Family, parse
from fewshot.core.errors import UserError

__all__ = ["FAMILY", "Backbone", "Blocks", "Foreign", "build", "sync_batch_norm"]

FAMILY: Family[Backbone] = Family("fewshot.backbones", "backbone", "Backbone", adopt=adopt)


def build(spec: str, reg: str = "none", image_size: int = 84, begin: bool = True) -> Backbone:
    """A backbone for square images of `image_size` pixels, with `reg` at its sites.

    For example `build("conv4", reg="targetdrop@3,4:drop_prob=0.2+dropout@1")`. With `begin`, it gets the weights that
    its options name, as in `timm:resnet18,pretrained=true`; without, it keeps its random ones. Raises UserError for
    unknown names, options or sites, for images too small for the network, and for weights that cannot be loaded.
    """
    (parsed, *more) = parse(spec)
    if more or parsed.sites:
        raise UserError(f"--backbone {spec}: give one network, without sites (they belong to --reg)")
    component, options = FAMILY.check(parsed)
    backbone = component(image_size, **options)
    backbone.place(reg)
    if begin:
        backbone.begin()
    return backbone
