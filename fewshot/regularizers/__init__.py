"""Regularizers: one file per method. To add yours, copy `dropout.py` and change it.

This file finds and builds them; `_base.py` holds what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from fewshot.core.components import Family, Spec, parse
from fewshot.core.errors import UserError
from fewshot.regularizers._base import Guide, Place, Regularizer, Site
from fewshot.regularizers._probe import check_method, idle, is_users

__all__ = ["FAMILY", "Guide", "Place", "Regularizer", "Site", "build", "build_all", "expand", "without_effect"]

ACTS = {
    "map": "after blocks", "branch": "within residual blocks", "input": "on the input",
    "image": "on images before they are normalised",
}  # fmt: skip

FAMILY: Family[Regularizer] = Family(
    "fewshot.regularizers", "regularizer", "Regularizer", aliases={"original": "what a backbone was published with"}
)


def build(spec: str | Spec, site: Site) -> Regularizer:
    """Build one regularizer at one site: `build("targetdrop:drop_prob=0.5,block_size=3", site)`.

    Raises UserError for an unknown name or option, a value out of range, a combination that the method declines,
    and a user's own method that does not do what `Regularizer` says.
    """
    if isinstance(spec, str):
        (spec, *more) = parse(spec)
        if more:
            raise UserError("build takes one regularizer; build each part of a `+` by itself")
    component, options = FAMILY.check(spec)
    method = component(site, **options)
    if "." in spec.name:  # tests hold ours to all laws
        with torch.random.fork_rng(devices=[]):
            check_method(component(site, **options), spec.name)
    return method


def expand(text: str, original: str = "none") -> list[Spec]:
    """The single regularizers of a `+`-joined text; `original` is replaced by what the backbone was published with.

    Raises UserError if sites or options are given to `original`, which has its own.
    """
    specs = parse(text)
    for spec in specs:
        if spec.name == "original" and str(spec) != "original":
            raise UserError(f"{spec}: original has its own sites and options; instead of it, write {original}")
    return [part for spec in specs for part in (parse(original) if spec.name == "original" else [spec])]


def without_effect(methods: Iterable[Regularizer]) -> list[str]:
    """The user's own classes whose methods change no map at any of their sites, though their rate is not 0."""
    effects: dict[str, bool] = {}
    for method in methods:
        if is_users(method) and method.active:
            name = f"{type(method).__module__}.{type(method).__qualname__}"
            try:
                effects[name] = effects.get(name, False) or not idle(method)
            except Exception:  # it cannot be copied, or not be tried like this: nothing is known of it
                effects[name] = True
    return [name for name, acts in effects.items() if not acts]


def build_all(specs: list[Spec], sites: list[Site]) -> list[Regularizer]:
    """Build every regularizer at each of its sites, in the order written.

    `sites` are all that a backbone has, and the named modules that `specs` ask for. A spec without `@` goes to its
    class's `default_sites`. Raises UserError if a method is asked to act where it cannot.
    """
    return [build(spec, site) for spec in specs for site in _sites(spec, sites)]


def _sites(spec: Spec, sites: list[Site]) -> list[Site]:
    component, _ = FAMILY.check(spec)
    acts = ACTS[component.place]
    its = {site.label: site for site in sites if site.place == component.place}
    numbered = [site for site in its.values() if site.numbered]
    wanted = spec.sites or component.default_sites(numbered)
    if not numbered and all(isinstance(label, int) for label in wanted):
        if not component.active:
            return []  # it does nothing anywhere
        remedy = "take resnet12, or another regularizer"
        if component.place == "map":
            remedy = f"name modules of the network, such as {spec.name}@layer3"
        raise UserError(f"{spec}: it acts {acts}, and this backbone has none; {remedy}")
    for label in map(str, wanted):
        if label not in its:
            numbers = ", ".join(site.label for site in numbered)
            raise UserError(f"{spec}: it acts {acts}, where there is no site {label}; this backbone has {numbers}")
    return [its[str(label)] for label in wanted]
