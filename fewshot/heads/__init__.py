"""Heads: support and query embeddings to logits. One file a method. To add yours, copy `proto.py` and change it.

Here is how they are found, built and checked; what they have in common is in `_base.py`.
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

    With `features` it is made for embeddings of that length, by `begin`; without, the caller calls `begin` before the
    head solves anything. `shape`: as in `Head.begin`.

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
    """Make a head ready for embeddings of this form, once: see `Head.begin`. One that has begun stays as it is.

    UserError where it needs a map, and the embeddings are none or not known to be one.
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
    """UserError where a user's head looks at other queries and does not declare `transductive`; and as `build` raises.

    To be called before any work, with the form of embeddings and of tasks, `queries` a class; `training`: also of what
    it does while it is trained. Evaluation asks once more (`check_alone`), of the head that has learned.
    """
    with seeded(0, "a head on trial"):
        head = build(spec)
        if is_users(head):
            begin(head, features, shape)
            check_untaught(head, features, ways, shots, queries, training)


def check_trainable(head: Head) -> None:
    """UserError where no network can be trained on episodes with this head."""
    name, remedy = type(head).__name__, "train with another, such as proto, and evaluate with this one"
    if not head.trainable:
        raise UserError(f"head {name} cannot be trained with (its class says trainable = False): {remedy}")
    if head.needs_base:
        raise UserError(f"head {name} needs features of the base classes, which training episodes lack: {remedy}")


def check_guide(head: Head) -> None:
    """UserError where a head gives no class weights, by which CamDrop is guided in training."""
    if type(head).fit is Head.fit and type(head).class_weights is Head.class_weights:
        raise head.no_weights


def check_untrained(head: Head) -> None:
    """UserError where this head solves nothing before its parameters are trained."""
    if head.needs_training:
        name = type(head).__name__
        remedy = "train with it on episodes, and evaluate that run"
        raise UserError(f"head {name} has weights that must be trained: {remedy}")
