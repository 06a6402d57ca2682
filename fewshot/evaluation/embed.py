"""Embed every image of a split once.

Shapes: I images, S pixels a side, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.core.compute import Compute, full_fp32
from fewshot.core.crew import Crew
from fewshot.core.errors import UserError
from fewshot.data import Split
from fewshot.data.augment import to_unit
from fewshot.data.images import ImageSource

VALIDATION_BATCH = 100  # images at once; with another number, kernels may add in another order
_ROWS = 2048  # embeddings that are checked at a time


class Base(NamedTuple):
    """The base classes' embeddings, those of the training split: what transforms and heads are fitted on."""

    features: Tensor
    """(N, D) float32, as the network gives them."""
    labels: Tensor | None
    """(N,) int64 class numbers; None if they are not known."""


@torch.no_grad()
def embed_split(
    network: Callable[[Tensor], Tensor], split: Split, compute: Compute, batch: int = VALIDATION_BATCH
) -> Tensor:
    """Embeddings (I, D) float32 of every image of the split, on the device.

    `network`, in evaluation mode, maps images (B, 3, S, S) in [0, 1] to (B, D); longer shapes are flattened. Raises
    UserError if the network does not return one row of numbers for each image, or if an embedding is not finite, naming
    the first such image.

    Several processes share the work by whole batches; each then has all embeddings, the same bits as from one alone.
    """
    source, crew = ImageSource(split, compute.device, keep=False), compute.crew
    images = len(split.images)

    def share(crew: Crew) -> slice:
        batches = crew.share(-(-images // batch))
        return slice(min(batches.start * batch, images), min(batches.stop * batch, images))

    mine, embeddings = share(crew), torch.empty(0, 0)
    for start in range(mine.start, mine.stop, batch):
        part = source.span(start, min(start + batch, images))
        with compute.autocast(), full_fp32():
            z = network(to_unit(part))
        check_embeddings(z, len(part))
        z = z.flatten(1)
        if start == mine.start:
            embeddings = torch.empty(images, z.shape[1], device=compute.device)
        if z.shape[1] != embeddings.shape[1]:
            raise UserError(
                f"the network returned {embeddings.shape[1]} features an image at first, and {z.shape[1]} for image"
                f" {start}: it must return as many for each"
            )
        embeddings[start : start + len(z)] = z
    features = crew.most(embeddings.shape[1])  # a process may have had no batch
    if not len(embeddings):
        embeddings = torch.empty(images, features, device=compute.device)
    crew.complete(embeddings, share)
    check_finite(embeddings, split)
    return embeddings


def check_embeddings(z: object, images: int) -> None:
    """Raise UserError if what a network returned is not a row of real numbers for each of `images` images."""
    if not isinstance(z, Tensor):
        raise UserError(f"the network returned a {type(z).__name__}, not a tensor of one row an image")
    if z.ndim < 2 or len(z) != images or not z[:1].numel() or z.is_complex():
        kind = str(z.dtype).removeprefix("torch.")
        raise UserError(
            f"the network returned {kind} of shape {tuple(z.shape)} for {images} image{'s' * (images != 1)}: it must"
            " return one row of real numbers for each"
        )


def check_finite(embeddings: Tensor, split: Split) -> None:
    """Raise UserError if an embedding is not finite, naming the first such image."""
    finite = torch.cat([part.isfinite().all(1) for part in embeddings.split(_ROWS)])
    if not finite.all():
        number = int((~finite).nonzero()[0])
        raise UserError(
            f"the embedding of image {number} of the {split.name} split (class {split.classes[split.labels[number]]})"
            " is not finite: the weights are broken or training diverged; train again with a lower --lr"
        )


def embed_base(
    network: Callable[[Tensor], Tensor], split: Split, compute: Compute, batch: int = VALIDATION_BATCH
) -> Base:
    """The embeddings of a split of base classes, and their labels; otherwise as `embed_split`."""
    embeddings = embed_split(network, split, compute, batch)
    return Base(embeddings, torch.from_numpy(split.labels).to(embeddings.device))
