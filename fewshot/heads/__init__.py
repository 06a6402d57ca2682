"""Heads: support and query embeddings to logits. One file a method. To add yours, copy `proto.py` and change it.

Here is how they are found, built and checked; what they have in common is in `_base.py`.
"""

from __future__ import annotations

from fewshot.core.components import Family, parse
from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products

__all__ = ["FAMILY", "Head", "Products", "build", "check_trainable"]

FAMILY: Family[Head] = Family("fewshot.heads", "head", "Head")


def build(spec: str) -> Head:
    """A head, such as `build("proto")` or `build("proto:variant=snell")`.

    Raises UserError for an unknown name or option.
    """
    (parsed, *more) = parse(spec)
    if more or parsed.sites:
        raise UserError(f"--head {spec}: give one head, without sites (they belong to --reg)")
    component, options = FAMILY.check(parsed)
    return component(**options)


def check_trainable(head: Head) -> None:
    """UserError where no network can be trained on episodes with this head."""
    name, remedy = type(head).__name__, "train with another, such as proto, and evaluate with this one"
    if not head.trainable:
        raise UserError(f"head {name} cannot be trained with (its class says trainable = False): {remedy}")
    if head.needs_base:
        raise UserError(f"head {name} needs features of the base classes, which training episodes lack: {remedy}")
