"""Solve episodes from the embeddings of a split, by looking up inner products if the head allows it.

    embeddings -> transform -> head, batch by batch of episodes -> how many queries of each class are right

Shapes: I images, D features; T episodes at a time, W ways, S shots, Q queries a class on average.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import heads, transforms
from fewshot.core.compute import full_fp32, near
from fewshot.core.errors import UserError
from fewshot.core.seeding import derive
from fewshot.episodes import Protocol, Tasks
from fewshot.evaluation.embed import Base
from fewshot.heads import Head, Products
from fewshot.transforms import Transform
from fewshot.transforms.none import Identity

_BATCH_BYTES = 64 * 2**20  # of what is gathered at a time: solving is bound by memory, so batches stay small
_GRAM_BYTES = 2 * 2**30  # largest matrix of all products that is made
_GRAM_SIDE = 2048  # images a block of it
_EPISODE_BYTES = 4 * 2**20  # of one episode's embeddings: more, as of Conv-512F, are not gathered if that can be helped
_PRODUCT_COST = 1 / 400  # of a multiplication in a large matrix product, if gathering a number costs 1 (measured, CPU)
_OFFSET = 1e4  # times the variance: float32 keeps less than three digits of what lies on top of a larger squared mean
_WORDS_PER_COUNTER = 4  # Philox 4x64 gives four 64-bit words a count


def wants_base(head: Head, transform: Transform | None = None) -> bool:
    """Whether `solve_episodes` needs `base` for these."""
    return head.needs_base or (transform is not None and transform.fitted)


@torch.no_grad()
@full_fp32()
def solve_episodes(
    head: Head,
    embeddings: Tensor,
    wanted: Sequence[Tasks],
    transform: Transform | None = None,
    base: Base | None = None,
) -> list[np.ndarray]:
    """How many queries of each class were right in each episode, (episodes, W) int32: one array for each of `wanted`.

    embeddings: of their split, (I, D) float32. With the number of episodes, only the result's memory grows.
    head: in evaluation mode; fitted here if it needs base features.
    transform: of the embeddings, fitted here if it needs to be; none by default.
    base: needed if `wants_base` says so; untransformed.

    Raises UserError if base features are missing, if the head's logits are not finite, if a user's head looks at other
    queries and does not declare `transductive`, or if a user's transform looks at other images.
    """
    whole = head
    embeddings = prepare(head, embeddings, transform, base)
    if (parts := head.split()) is not None:
        each, head = parts
        embeddings = each(embeddings)
    if head.by_products and not head.shift_invariant and _mostly_offset(embeddings):
        head, embeddings = copy.deepcopy(head).double(), embeddings.double()
    for form in dict.fromkeys((each.protocol.ways, each.protocol.shots, each.protocol.queries) for each in wanted):
        heads.check_alone(head, embeddings, *form, part_of=whole)
    by_products = [head.by_products and _few_supports(tasks, embeddings) for tasks in wanted]
    gram = None
    if any(by_products) and _wants_gram(embeddings, wanted):
        gram = gram_matrix(embeddings, centred=head.shift_invariant)
    return [
        _solve(head, embeddings, gram if by_product else None, tasks)
        for by_product, tasks in zip(by_products, wanted, strict=True)
    ]


def prepare(head: Head, embeddings: Tensor, transform: Transform | None, base: Base | None) -> Tensor:
    """Fit the transform and the head on the base classes if they need it; returns the transformed embeddings.

    Raises UserError if base features are missing, or if a user's transform looks at other images.
    """
    transform = transform or Identity()
    if base is None:
        if wants_base(head, transform):
            who = f"head {type(head).__name__}" if head.needs_base else f"transform {transform.label}"
            raise UserError(f"{who} needs features of the base classes, and there are none: give them as base")
    else:
        transform.fit(base.features, base.labels)
    transforms.check_alone(transform, embeddings)
    if base is not None and head.needs_base:
        if base.labels is None:
            raise UserError(f"head {type(head).__name__} needs the base images' labels: give them as base_labels")
        head.fit_base(transform(base.features), base.labels)
    return transform(embeddings)


def _mostly_offset(embeddings: Tensor) -> bool:
    """Whether images differ so little, next to their common offset, that float32 inner products hardly show it."""
    mean = embeddings.mean(0)
    variance = sum((part - mean).square().sum() for part in embeddings.split(_GRAM_SIDE)) / len(embeddings)
    return bool(mean.square().sum() > _OFFSET * variance)


def accuracies(right: np.ndarray, queries: int) -> np.ndarray:
    """Accuracy (episodes,) float64 of each episode over all its queries: from the counts of `solve_episodes`, and how
    many queries a class has on average."""
    return right.sum(1) / (right.shape[1] * queries)


def _few_supports(tasks: Tasks, embeddings: Tensor) -> bool:
    """Whether an episode has no more support images than features: else their products are singular."""
    return tasks.protocol.ways * tasks.protocol.shots <= embeddings.shape[1]


def _wants_gram(embeddings: Tensor, wanted: Sequence[Tasks]) -> bool:
    """Whether multiplying all images with all, once, is possible, and less work than gathering each episode's."""
    images, features = embeddings.shape
    if embeddings.element_size() * images**2 > _GRAM_BYTES:
        return False
    longest = max(tasks.protocol.images for tasks in wanted) * features * embeddings.element_size()
    gathered = sum(tasks.episodes * tasks.protocol.images for tasks in wanted)
    return longest > _EPISODE_BYTES or images**2 * _PRODUCT_COST < gathered


def gram_matrix(embeddings: Tensor, centred: bool = False) -> Tensor:
    """(I, I): every inner product of embeddings (I, D); `centred`: minus their mean.

    Half of the blocks are computed; the others mirror them.
    """
    gram = embeddings.new_empty(len(embeddings), len(embeddings))
    mean = embeddings.mean(0) if centred else None

    def block(part: Tensor) -> Tensor:
        return part if mean is None else part - mean  # block by block: a copy of them all may not fit

    parts = embeddings.split(_GRAM_SIDE)
    for i in range(len(parts)):
        one = block(parts[i])
        for j in range(i + 1):
            rows, columns = (slice(n * _GRAM_SIDE, (n + 1) * _GRAM_SIDE) for n in (i, j))
            torch.mm(one, block(parts[j]).mT, out=gram[rows, columns])
            if i != j:
                gram[columns, rows] = gram[rows, columns].mT
    return gram


def _solve(head: Head, embeddings: Tensor, gram: Tensor | None, tasks: Tasks) -> np.ndarray:
    """`solve_episodes` for one of `wanted`: by `gram`, or, if there is none, by the embeddings themselves."""
    protocol, sampler, device = tasks.protocol, tasks.sampler, embeddings.device
    labels = torch.arange(protocol.ways, device=device).repeat_interleave(protocol.shots)
    targets = F.one_hot(labels, protocol.ways).to(embeddings.dtype)
    at_once = max(1, _BATCH_BYTES // (embeddings.element_size() * _gathered(head, embeddings, gram, protocol)))
    counts, finite = [], torch.ones((), dtype=torch.bool, device=device)
    for start in range(0, tasks.episodes, at_once):
        drawn = sampler.episodes(start, min(at_once, tasks.episodes - start))
        # (T, W*S), (T, W*Q), (T, W*Q)
        support, query, truth = (near(part, device).flatten(1) for part in drawn)
        if head.transductive:
            order = near(query_order(sampler.seed, start, *query.shape), device)
            query, truth = query.gather(1, order), truth.gather(1, order)
        if gram is None:
            logits = head(embeddings[support], labels.expand(len(support), -1), embeddings[query], protocol.ways)
        else:
            products = _look_up(gram, support, query, embeddings.shape[1], head.transductive)
            logits = head.solve_products(products, targets.expand(len(support), -1, -1))
        finite &= logits.isfinite().all()
        right = (logits.argmax(2) == truth).int()  # (T, W*Q)
        counts.append(right.new_zeros(len(right), protocol.ways).scatter_add_(1, truth, right))
    if not finite:
        raise UserError(
            f"{protocol} episodes: the head's logits are not finite; the embeddings are too large, or nearly all alike"
        )
    return torch.cat(counts).cpu().numpy()


def _gathered(head: Head, embeddings: Tensor, gram: Tensor | None, protocol: Protocol) -> int:
    """How many numbers are gathered for one episode."""
    if gram is None:
        return protocol.images * embeddings.shape[1]
    support, queries = protocol.ways * protocol.shots, protocol.ways * protocol.queries
    products = protocol.images * support + (queries**2 if head.transductive else 0)
    return 3 * products  # the index of a product is two words


def query_order(seed: int, first: int, count: int, queries: int) -> np.ndarray:
    """The order in which a transductive head sees the queries of tasks first .. first+count-1.

    (count, queries) int64, a permutation a task, which (seed, the task's number, queries) decides. Without it, queries
    come class by class, and a head that sees them all could tell their classes from their places.
    """
    counters = -(-queries // _WORDS_PER_COUNTER)
    stream = np.random.Philox(key=derive(seed, queries, "order of queries"), counter=first * counters)
    words = stream.random_raw(count * counters * _WORDS_PER_COUNTER).reshape(count, -1)[:, :queries]
    return words.argsort(axis=1, kind="stable")


def _look_up(gram: Tensor, support: Tensor, query: Tensor, features: int, transductive: bool) -> Products:
    """The products of episodes with support (T, N) and query (T, Q) images, from the matrix of all.

    Those of queries with each other are looked up for transductive heads only.
    """

    def among(rows: Tensor, columns: Tensor) -> Tensor:
        return torch.take(gram, rows[..., None] * len(gram) + columns[:, None])

    queries = among(query, query) if transductive else None
    return Products(among(support, support), among(query, support), gram.diagonal()[query], features, queries)
