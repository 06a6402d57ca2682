"""Heads: support and query embeddings to logits. One file a method."""

from __future__ import annotations

from fewshot.core.components import Family, parse
from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products

__all__ = ["FAMILY", "Head", "Products", "build"]

FAMILY = Family("fewshot.heads", "head", "Head")


def build(spec: str) -> Head:
    """A head, such as `build("proto")` or `build("proto:variant=snell")`.

    Raises UserError for an unknown name or option.
    """
    (parsed, *more) = parse(spec)
    if more or parsed.sites:
        raise UserError(f"--head {spec}: give one head, without sites (they belong to --reg)")
    component, options = FAMILY.check(parsed)
    return component(**options)
