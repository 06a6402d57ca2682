"""Regularizers: one file a method. To add yours, copy `dropout.py` and change it.

Here is how they are found and built; what they have in common is in `_base.py`.
"""

from __future__ import annotations

from fewshot.components import Family, Spec, parse
from fewshot.errors import UserError
from fewshot.regularizers._base import Regularizer, Site

__all__ = ["FAMILY", "Regularizer", "Site", "build", "build_all"]

FAMILY = Family("fewshot.regularizers", "regularizer", "Regularizer")


def build(spec: str | Spec, site: Site) -> Regularizer:
    """One regularizer at one site: `build("targetdrop:drop_prob=0.5,block_size=3", site)`.

    Raises UserError for an unknown name or option, a value out of range, or a combination that the
    method declines.
    """
    if isinstance(spec, str):
        (spec, *more) = parse(spec)
        if more:
            raise UserError("build takes one regularizer; build each part of a `+` by itself")
    component, options = FAMILY.check(spec)
    return component(site, **options)


def build_all(text: str, sites: list[Site], original: str = "none") -> dict[int, list[Regularizer]]:
    """Every regularizer of a `+`-joined text at its sites: depth -> modules, in the order written.

    A part without `@` goes where its class's `default_sites` says; the part `original` stands for
    what the backbone was published with.
    """
    by_depth = {site.depth: site for site in sites}
    placed: dict[int, list[Regularizer]] = {}
    specs = [part for spec in parse(text) for part in (parse(original) if spec.name == "original" else [spec])]
    for spec in specs:
        component, _ = FAMILY.check(spec)
        for depth in spec.sites or component.default_sites(sites):
            if depth not in by_depth:
                raise UserError(f"{spec}: there is no site {depth}; this backbone has {_numbers(by_depth)}")
            placed.setdefault(depth, []).append(build(spec, by_depth[depth]))
    return placed


def _numbers(depths) -> str:
    return ", ".join(map(str, sorted(depths)))
