"""Transforms of embeddings, applied before any head: one file per method. To add yours, copy `center.py` and change it.

    transforms.build("center+l2")       first subtract the base mean, then scale to length 1

This file finds, composes and checks them; `_base.py` holds what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.core.components import Family, Spec, parse
from fewshot.core.errors import UserError
from fewshot.core.seeding import seeded
from fewshot.transforms._base import Chain, Transform
from fewshot.transforms._probe import check_alone, check_untaught

__all__ = ["FAMILY", "Chain", "Transform", "build", "check_alone", "check_trainable"]

FAMILY: Family[Transform] = Family("fewshot.transforms", "transform", "Transform")


def build(spec: str, features: int = 64) -> Transform:
    """A transform, such as `build("l2")`, or several applied from left to right, such as `build("power:beta=0.5+l2")`.

    A user's own transform is tried on random embeddings of length `features`; evaluation tries it again on the real
    ones (`check_alone`). Raises UserError for an unknown name or option, a value out of range, and a transform that
    looks at other images.
    """
    specs = parse(spec)
    built = _built(specs)
    with seeded(0, "a transform on trial"):
        check_untaught(_built(specs), features)
    return built


def _built(specs: Sequence[Spec]) -> Transform:
    parts = [_build_one(part) for part in specs]
    return parts[0] if len(parts) == 1 else Chain(parts)


def _build_one(spec: Spec) -> Transform:
    if spec.sites:
        raise UserError(f"--transform {spec}: a transform has no sites (they belong to --reg)")
    component, options = FAMILY.check(spec)
    return component(**options)


def check_trainable(transform: Transform) -> None:
    """Raises UserError if no network can be trained on episodes through this transform."""
    if transform.fitted:
        raise UserError(
            f"transform {transform.label} is fitted on the base classes, whose embeddings change at every step of"
            " training: train without it, and evaluate with it"
        )
