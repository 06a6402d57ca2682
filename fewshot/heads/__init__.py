"""Heads: support and query embeddings to logits. One file per method. To add yours, copy `proto.py` and change it.

This module finds, builds and checks them; what they have in common is in `_base.py`.
"""

from __future__ import annotations

from fewshot.core.components import Family, parse
from fewshot.core.errors import UserError
from fewshot.core.seeding import seeded
from fewshot.heads._base import Head, Products
from fewshot.heads._probe import check_alone, check_untaught, is_users

__all__ = [
    "FAMILY", "Head", "Products", "begin", "build", "check_alone", "check_declared", "check_guide", "check_trainable",
    "check_untrained",
]  # fmt: skip

FAMILY: Family[Head] = Family("fewshot.heads", "head", "Head")


def build(spec: str, features: int | None = None, shape: tuple[int, int, int] | None = None) -> Head:
    """A head, such as `build("proto")` or `build("proto:variant=snell")`.

    With `features`, `begin` makes it ready for embeddings of that length; without, the caller must call `begin` before
    the head solves anything. `shape`: as in `Head.begin`.

    Raises UserError for an unknown name or option, and as `begin` does.
    """
    (parsed, *more) = parse(spec)
    if more or parsed.sites:
        raise UserError(f"--head {spec}: give one head, without sites (they belong to --reg)")
    component, options = FAMILY.check(parsed)
    head = component(**options)
    if features is not None:
        begin(head, features, shape)
    return head


def begin(head: Head, features: int, shape: tuple[int, int, int] | None) -> None:
    """Make a head ready for embeddings of this form: see `Head.begin`. A head that is ready already does not change.

    Raises UserError if it needs maps, and the embeddings are not maps or not known to be maps.
    """
    if head.made_for is not None:
        return
    if head.needs_map and shape is None:
        raise UserError(
            f"head {type(head).__name__} works on maps, and these embeddings are not known to be flattened maps: take a"
            " backbone whose embedding is its last stage's map, such as conv4, or another head"
        )
    head.begin(features, shape)
    head.made_for = features


def check_declared(
    spec: str,
    features: int,
    shape: tuple[int, int, int] | None,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    training: bool = False,
) -> None:
    """Raise UserError if a user's head looks at other queries without declaring `transductive`; also as `build` does.

    Call it before any work, with the form of the embeddings and tasks; `queries` are per class. With `training`, it
    also checks what the head does while it is trained. Evaluation checks again (`check_alone`), with the trained head.
    """
    with seeded(0, "a head on trial"):
        head = build(spec)
        if is_users(head):
            begin(head, features, shape)
            check_untaught(head, features, ways, shots, queries, training)


def check_trainable(head: Head) -> None:
    """Raise UserError if no network can be trained on episodes with this head."""
    name, remedy = type(head).__name__, "train with another, such as proto, and evaluate with this one"
    if not head.trainable:
        raise UserError(f"no network can be trained with head {name} (its class says trainable = False): {remedy}")
    if head.needs_base:
        raise UserError(f"head {name} needs features of the base classes, which training episodes lack: {remedy}")


def check_guide(head: Head) -> None:
    """Raise UserError if a head gives no class weights, which guide CamDrop in training."""
    if type(head).fit is Head.fit and type(head).class_weights is Head.class_weights:
        raise head.no_weights


def check_untrained(head: Head) -> None:
    """Raise UserError if this head solves nothing before its parameters are trained."""
    if head.needs_training:
        name = type(head).__name__
        remedy = "train with it on episodes, and evaluate that run"
        raise UserError(f"head {name} has weights that must be trained: {remedy}")
