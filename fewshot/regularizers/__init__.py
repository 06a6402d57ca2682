"""Regularizers: one file a method. To add yours, copy `dropout.py` and change it.

Here is how they are found and built; what they have in common is in `_base.py`.
"""

from __future__ import annotations

from fewshot.core.components import Family, Spec, parse
from fewshot.core.errors import UserError
from fewshot.regularizers._base import Guide, Place, Regularizer, Site

__all__ = ["FAMILY", "Guide", "Place", "Regularizer", "Site", "build", "build_all"]

ACTS = {
    "map": "after blocks", "branch": "within residual blocks", "input": "on the input",
    "image": "on images before they are normalised",
}  # fmt: skip

FAMILY = Family(
    "fewshot.regularizers", "regularizer", "Regularizer", aliases={"original": "what a backbone was published with"}
)


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
    what the backbone was published with. UserError where a method is to act where it cannot.
    """
    placed: dict[int, list[Regularizer]] = {}
    specs = [part for spec in parse(text) for part in (parse(original) if spec.name == "original" else [spec])]
    for spec in specs:
        component, _ = FAMILY.check(spec)
        acts = ACTS[component.place]
        its = {site.depth: site for site in sites if site.place == component.place}
        if not its:
            remedy = "take resnet12, or another regularizer"
            raise UserError(f"{spec}: it acts {acts}, and this backbone has none; {remedy}")
        for depth in spec.sites or component.default_sites(list(its.values())):
            if depth not in its:
                numbers = ", ".join(map(str, its))
                raise UserError(f"{spec}: it acts {acts}, where there is no site {depth}; this backbone has {numbers}")
            placed.setdefault(depth, []).append(build(spec, its[depth]))
    return placed
