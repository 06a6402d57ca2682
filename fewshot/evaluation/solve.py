"""Embed each image of a split once; then solve episodes by inspection up inner products, or embeddings.

Shapes: I images, D features; T episodes at a time, W ways, S shots, Q queries a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data.augment import to_unit
from fewshot.data.images import ImageSource
from fewshot.data.store import Split
from fewshot.episodes import Tasks
from fewshot.heads import Head, Products

_BATCH_BYTES = 64 * 2**20  # of what is gathered at a time: solving is bound by memory, so batches stay small
_GRAM_BYTES = 2 * 2**30  # largest matrix of all products that is made
_GRAM_SIDE = 2048  # images a block of it
_EPISODE_BYTES = 4 * 2**20  # of one episode's embeddings: more, as of Conv-512F, are not gathered if that can be helped
_PRODUCT_COST = 1 / 400  # of a multiplication in a large matrix product, where gathering a number is 1 (measured, CPU)


@torch.inference_mode()
def embed_split(network: Callable[[Tensor], Tensor], split: Split, compute: Compute, batch: int = 100) -> Tensor:
    """Embeddings (I, D) float32 on the device of every image of the split.

    `network`, in evaluation mode, maps images (B, 3, S, S) in [0, 1] to (B, D); longer shapes are made flat.
    UserError names the first image whose embedding is not finite.
    """
    source = ImageSource(split, compute.device)
    images = len(split.images)
    embeddings = None
    for start in range(0, images, batch):
        held, positions = source.fetch(np.arange(start, min(start + batch, images)))
        with compute.autocast():
            z = network(to_unit(held[positions])).flatten(1)
        if embeddings is None:
            embeddings = torch.empty(images, z.shape[1], device=compute.device)
        embeddings[start : start + len(z)] = z
    check_finite(embeddings, split)
    return embeddings


def check_finite(embeddings: Tensor, split: Split) -> None:
    """UserError names the first image whose embedding is not finite."""
    finite = torch.cat([part.isfinite().all(1) for part in embeddings.split(_GRAM_SIDE)])
    if not finite.all():
        number = int((~finite).nonzero()[0])
        raise UserError(
            f"the embedding of image {number} of the {split.name} split (class {split.classes[split.labels[number]]})"
            " is not finite: the weights are broken or training diverged; train again with a lower --lr"
        )


@torch.inference_mode()
def solve_episodes(head: Head, embeddings: Tensor, wanted: Sequence[Tasks]) -> list[np.ndarray]:
    """How many queries of each class were right in each episode, (episodes, W) int32: one array for each of `wanted`.

    From their split's embeddings (I, D), in memory that grows with the episodes by the result alone. `head` is in
    evaluation mode. UserError where its logits are not finite.
    """
    by_products = [head.closed_form and _few_supports(tasks, embeddings) for tasks in wanted]
    gram = None
    if any(by_products) and _wants_gram(embeddings, wanted):
        gram = gram_matrix(embeddings, centred=head.shift_invariant)
    return [
        _solve(head, embeddings, gram if by_product else None, tasks)
        for by_product, tasks in zip(by_products, wanted, strict=True)
    ]


def accuracies(right: np.ndarray, queries: int) -> np.ndarray:
    """Accuracy (episodes,) float64 of each episode, from `solve_episodes`' counts and the queries a class."""
    return right.sum(1) / (right.shape[1] * queries)


def _few_supports(tasks: Tasks, embeddings: Tensor) -> bool:
    """Whether an episode's support images span no more than their features: else their products are singular."""
    return tasks.protocol.ways * tasks.protocol.shots <= embeddings.shape[1]


def _wants_gram(embeddings: Tensor, wanted: Sequence[Tasks]) -> bool:
    """Whether to multiply all images with all once is possible, and less work than to gather each episode's."""
    images, features = embeddings.shape
    if 4 * images**2 > _GRAM_BYTES:
        return False
    longest = max(tasks.protocol.images for tasks in wanted) * features * 4
    gathered = sum(tasks.episodes * tasks.protocol.images for tasks in wanted)
    return longest > _EPISODE_BYTES or images**2 * _PRODUCT_COST < gathered


def gram_matrix(embeddings: Tensor, centred: bool = False) -> Tensor:
    """(I, I): every inner product of embeddings (I, D), `centred`: less their mean.

    Half of the blocks are computed, the others are their mirror.
    """
    gram = embeddings.new_empty(len(embeddings), len(embeddings))
    mean = embeddings.mean(0) if centred else None

    def block(part: Tensor) -> Tensor:
        return part if mean is None else part - mean  # of a block, for a copy of them all may not fit

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
    """`solve_episodes` for one of them: by `gram`, or where there is none by the embeddings themselves."""
    protocol, device = tasks.protocol, embeddings.device
    classes = torch.arange(protocol.ways, device=device)
    support_labels, query_labels = (classes.repeat_interleave(n) for n in (protocol.shots, protocol.queries))
    targets = F.one_hot(support_labels, protocol.ways).float()
    images, support_images = protocol.images, protocol.ways * protocol.shots
    gathered = images * (embeddings.shape[1] if gram is None else 3 * support_images)  # a product's index is two words
    at_once = max(1, _BATCH_BYTES // (4 * gathered))
    counts, finite = [], torch.ones((), dtype=torch.bool, device=device)
    for start in range(0, tasks.episodes, at_once):
        index = torch.from_numpy(tasks.sampler.draw(start, min(at_once, tasks.episodes - start))).to(device)
        support, query = (part.flatten(1) for part in index.split([protocol.shots, protocol.queries], dim=2))
        if gram is None:
            labels = support_labels.expand(len(index), -1)
            logits = head(embeddings[support], labels, embeddings[query], protocol.ways)
        else:
            products = _look_up(gram, support, query, embeddings.shape[1])
            logits = head.solve_products(products, targets.expand(len(index), -1, -1))
        finite &= logits.isfinite().all()
        right = logits.argmax(2) == query_labels  # (T, W*Q)
        counts.append(right.view(-1, protocol.ways, protocol.queries).sum(2, dtype=torch.int32))
    if not finite:
        raise UserError(
            f"{protocol} episodes: the head's logits are not finite; the embeddings are too large, or nearly all alike"
        )
    return torch.cat(counts).cpu().numpy()


def _look_up(gram: Tensor, support: Tensor, query: Tensor, features: int) -> Products:
    """The products of episodes with support (T, N) and query (T, Q) images, from the matrix of all."""
    columns = support[:, None]
    return Products(
        torch.take(gram, support[..., None] * len(gram) + columns),
        torch.take(gram, query[..., None] * len(gram) + columns),
        gram.diagonal()[query],
        features,
    )
