"""Embed each image of a split once; then solve episodes by looking embeddings up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewshot.backbones import Backbone
from fewshot.compute import Compute
from fewshot.data.augment import to_unit
from fewshot.data.images import ImageSource, Normalise
from fewshot.data.store import Split
from fewshot.episodes import EpisodeSampler
from fewshot.errors import UserError
from fewshot.heads import Head

_BATCH_BYTES = 256 * 2**20  # of gathered embeddings: solving is bound by memory, so batches stay small


@torch.inference_mode()
def embed_split(backbone: Backbone, normalise: Normalise, split: Split, compute: Compute, batch: int = 100) -> Tensor:
    """Embeddings (N, D) float32 on the device of every image of the split, in evaluation mode.

    UserError names the first image whose embedding is not finite.
    """
    source = ImageSource(split, compute.device)
    backbone.eval()
    embeddings = torch.empty(len(split.images), backbone.features, device=compute.device)
    for start in range(0, len(embeddings), batch):
        index = np.arange(start, min(start + batch, len(embeddings)))
        images, positions = source.fetch(index)
        with compute.autocast():
            embeddings[index[0] : index[-1] + 1] = backbone(normalise(to_unit(images[positions]))).float()
    finite = embeddings.isfinite().all(1)
    if not finite.all():
        number = int((~finite).nonzero()[0])
        raise UserError(
            f"the embedding of image {number} of the {split.name} split (class {split.classes[split.labels[number]]})"
            " is not finite: the weights are broken or training diverged; train again with a lower --lr"
        )
    return embeddings


@torch.inference_mode()
def episode_accuracies(head: Head, embeddings: Tensor, sampler: EpisodeSampler, episodes: int) -> np.ndarray:
    """Accuracy (episodes,) float32 of each of the sampler's first episodes, from a split's embeddings (N, D)."""
    head.eval()
    protocol, device = sampler.protocol, embeddings.device
    labels = torch.arange(protocol.ways, device=device)
    support_labels = labels.repeat_interleave(protocol.shots)
    query_labels = labels.repeat_interleave(protocol.queries)
    at_once = max(1, _BATCH_BYTES // (protocol.images * embeddings.shape[1] * 4))
    accuracies = []
    for start in range(0, episodes, at_once):
        count = min(at_once, episodes - start)
        index = torch.from_numpy(sampler.draw(start, count)).to(device)
        z = embeddings[index]  # (count, ways, shots + queries, D)
        support, query = z.split([protocol.shots, protocol.queries], dim=2)
        logits = head(
            support.flatten(1, 2), support_labels.expand(count, -1), query.flatten(1, 2), ways=protocol.ways
        )
        accuracies.append((logits.argmax(2) == query_labels).float().mean(1))
    return torch.cat(accuracies).cpu().numpy()
