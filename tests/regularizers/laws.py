"""The table of laws: what every feature-map regularizer obeys, whatever it drops.

One row a method and option; a new method earns the whole suite with one more row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fewshot import regularizers
from fewshot.regularizers import Regularizer, Site, cutout
from fewshot.regularizers.dropblock import expected_drop, seed_rate


@dataclass(frozen=True)
class Row:
    """A spec, its exact expected drop fraction on C x H x W maps, and over what its multiplier has mean 1."""

    spec: str
    expected: object
    scope: str
    """"map" (each n, c), "batch", "expectation", "passes" (so, too, but by one draw a pass), "none" (not rescaled)."""


def targetdrop_bounds(drop_prob: float):
    """Between a block in the corner and a block inside, for each of floor(drop_prob * C) channels."""

    def bounds(method, site: Site) -> tuple[float, float]:
        reach = method.block_size // 2
        corner = (min(reach + 1, site.height)) * (min(reach + 1, site.width))
        inside = min(2 * reach + 1, site.height) * min(2 * reach + 1, site.width)
        share = int(drop_prob * site.channels + 1e-9) / site.channels / (site.height * site.width)
        return share * corner, share * inside

    return bounds


def around(value, tolerance: float):
    def bounds(method, site: Site) -> tuple[float, float]:
        exact = value(method, site)
        return exact * (1 - tolerance), exact * (1 + tolerance)

    return bounds


def dropblock_exact(method, site: Site) -> float:
    return expected_drop(method.drop_prob, method.block_size, site.height, site.width)


def dropblock_metaopt(method, site: Site) -> tuple[float, float]:
    """Between each block's middle alone and whole blocks: which it is changes from step to step."""
    fits = (site.height - method.block_size + 1) * (site.width - method.block_size + 1)
    rate = seed_rate(method.drop_prob, method.block_size, site.height, site.width)
    return 0.9 * rate * fits / (site.height * site.width), 1.1 * dropblock_exact(method, site)


def attentiondrop_zeros(method, site: Site) -> float:
    """The top percent (am) or the maximum alone (sm, ad) of the maps drawn; a map of one element is constant."""
    size = site.height * site.width
    if size == 1:
        return 0.0
    return method.drop_prob * (method.count if method.mode == "am" else 1) / size


def focuseddropout_normal(method, site: Site) -> float:
    """What lies below the threshold in standard normal maps, simulated."""
    noise = np.random.default_rng(0)
    below = []
    for _ in range(400 if site.height <= 10 else 100):
        maps = noise.standard_normal((site.channels, site.height, site.width))
        reference = maps[maps.mean((1, 2)).argmax()]
        gamma = noise.uniform(method.low, method.high, reference.shape if method.per_unit else ())
        share = (reference <= gamma * reference.max()).mean() if reference.max() > 0 else float(method.invert)
        below.append(1 - share if method.invert else share)
    return float(np.mean(below))


def cutout_exact(method, site: Site) -> float:
    return cutout.expected_drop(method.size, site.height, site.width)


ROWS = [
    Row("none", around(lambda method, site: 0.0, 0), "map"),
    Row("dropout:drop_prob=0.3", around(lambda method, site: 0.3, 0.1), "expectation"),
    Row("spatialdropout:drop_prob=0.3", around(lambda method, site: 0.3, 0.1), "expectation"),
    Row("dropblock:drop_prob=0.2", around(dropblock_exact, 0.1), "batch"),
    Row("dropblock:drop_prob=0.1,block_size=1,ramp=0", around(dropblock_exact, 0.1), "batch"),
    Row("dropblock:drop_prob=0.2,variant=metaopt", dropblock_metaopt, "batch"),
    *(
        Row(f"targetdrop:drop_prob=0.4,attention={attention}", targetdrop_bounds(0.4), "map")
        for attention in ("frozen", "ste", "ste_reversed", "gap", "random")
    ),
    Row("targetdrop:drop_prob=0.4,ties=all,attention=gap", targetdrop_bounds(0.4), "map"),
    *(
        Row(f"attentiondrop:drop_prob=0.4,mode={mode},literal={literal}", around(attentiondrop_zeros, 0.1), scope)
        for mode in ("am", "sm", "ad")
        for literal, scope in (("false", "map"), ("true", "none"))
    ),
    *(
        Row(f"focuseddropout:{options}", around(focuseddropout_normal, 0.1), "none")
        for options in ("low=0.3", "invert=true", "low=0.6,high=0.9,per_unit=true")
    ),
    Row("cutout", around(cutout_exact, 0.1), "none"),
    Row("droppath:drop_prob=0.6", around(lambda method, site: 0.6 * 3 / 4, 0.2), "expectation"),
    Row("stochasticdepth:drop_prob=0.6", around(lambda method, site: 0.6 * 3 / 4, 0.15), "passes"),
]

# 84 px maps of every backbone after each block, then the smallest there are.
SIZES = (42, 21, 10, 5, 2, 1)


def build(spec: str, size: int, channels: int = 16) -> Regularizer:
    torch.manual_seed(0)
    return regularizers.build(spec, Site(channels, size, size, depth=3, depths=4))
