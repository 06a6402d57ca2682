"""Does a user's head look at the other queries of a task without declaring it?

Queries reach a head class by class unless it declares `transductive`. An undeclared head that looks at a query's
neighbours would read classes off positions; one that looks at all queries would be ranked beside heads that look at
none.

Shapes: T tasks, N support and Q query images per task, W ways (classes), D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.core.alone import others_matter
from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products

_TASKS = 2
_BASE, _BASE_CLASSES = 40, 8  # images


def is_users(head: Head) -> bool:
    """Whether a head's class is a user's own. Ours are checked by tests."""
    return not type(head).__module__.startswith("fewshot.")


def check_alone(head: Head, like: Tensor, ways: int, shots: int, queries: int, part_of: Head | None = None) -> None:
    """Raise UserError if other queries change a query's logits, in a user's head that is not declared `transductive`.

    The head solves two tasks of random embeddings in its current mode, then again with the queries in another order
    and, in evaluation mode, with half of them. (In training mode, batch norm may take its statistics from all queries.)
    If it cannot solve these tasks at all, no error is raised: the real ones will show why.

    like: any tensor (..., D) of the embeddings' type and on their device. queries: per class. part_of: the user's own
    head, if `head` is what `Head.split` left of it. torch's random state does not change.
    """
    users = part_of or head
    if head.transductive or ways * queries < 2 or not is_users(users):
        return
    features, device = like.shape[-1], like.device
    labels = torch.arange(ways, device=device).repeat_interleave(shots).expand(_TASKS, -1)
    noise = torch.Generator().manual_seed(0)
    # A head that weighs queries by their distances may see none of the others if all are far from one another.
    for scale in (1.0, features**-0.5):
        drawn = torch.randn(_TASKS, ways * (shots + queries), features, generator=noise)
        support, query = (scale * drawn).to(like).split([ways * shots, ways * queries], 1)
        for solve in _solvers(head, support, labels, ways):
            if others_matter(solve, query, halve=not head.training):
                raise UserError(
                    f"head {type(users).__name__}: the other queries of a task change a query's logits, and its class"
                    " does not say so: declare transductive = True, or let it solve each query by itself"
                )


def check_untaught(head: Head, features: int, ways: int, shots: int, queries: int, training: bool) -> None:
    """`check_alone` for a head that has seen no data and is discarded afterwards; `training`: also in training mode."""
    form = (torch.empty(0, features), ways, shots, queries)
    head.eval()
    if head.needs_base:
        try:
            head.fit_base(torch.randn(_BASE, features), torch.arange(_BASE) % _BASE_CLASSES)
        except Exception:  # it cannot learn from noise
            return
    check_alone(head, *form)
    if training and head.trainable and not head.needs_base:
        check_alone(head.train(), *form)


def _solvers(head: Head, support: Tensor, labels: Tensor, ways: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """The ways in which evaluation may have queries (T, Q, D) solved."""
    yield lambda query: head(support, labels, query, ways)
    if head.by_products:
        targets = F.one_hot(labels, ways).to(support.dtype)
        yield lambda query: head.solve_products(replace(Products.of(support, query), queries=None), targets)
