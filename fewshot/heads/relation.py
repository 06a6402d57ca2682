"""Relation Network (Sung et al., Learning to Compare, CVPR 2018): a small network compares a query with each class."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.heads._base import Head, check_length

_PAIRS_BYTES = {"cpu": 4 * 2**20, "cuda": 512 * 2**20}
"""Of pairs' maps at a time in evaluation: on a CPU few, so that they stay in its cache; on a GPU enough to fill it."""


class Relation(Head):
    """The logit of a class is g(class map, query map): a learned network g on the two maps, side by side (eq. 1).

    g is two blocks of 3x3 convolution to `channels` channels, batch norm, ReLU and 2x2 max pool, then a layer of
    `hidden` units with ReLU, and a layer with a single output (section 3.4). Embeddings must be flattened maps. Ours
    are smaller than the paper's 19x19, so convolutions pad by 1, and a side of 1 is no longer pooled. In evaluation,
    batch norm uses its running statistics; the paper's code normalises the test pairs together, which is transductive.

    `pool`: a class's map is the "mean" of its support images' maps (default), or their "sum", as in the paper. With one
    shot they are equal. A network trained with one number of shots sees sums of another magnitude with another number.

    `loss`: "cross-entropy" of the logits (default), as in all heads here and in Chen et al. (A Closer Look at Few-shot
    Classification, ICLR 2019); or "mse", the paper's squared error of sigmoid(logit) against 1 for the right class and
    0 for the others (eq. 2).
    """

    needs_map = needs_training = True

    def __init__(
        self,
        *,
        pool: Literal["mean", "sum"] = "mean",
        loss: Literal["cross-entropy", "mse"] = "cross-entropy",
        channels: int = 64,
        hidden: int = 8,
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("hidden", hidden)):
            if value < 1:
                raise UserError(f"relation:{name}={value} is not 1 or more")
        self.pool, self.squares, self.channels, self.hidden = pool, loss == "mse", channels, hidden

    def begin(self, features: int, shape: tuple[int, int, int] | None) -> None:
        """See Head.begin. Initial weights are as in the paper's code: normal, and the biases of the two layers 1."""
        assert shape is not None, "needs_map"
        self.shape = shape
        channels, height, width = shape
        self.first = nn.Conv2d(2 * channels, self.channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(self.channels, self.channels, 3, padding=1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(self.channels), nn.BatchNorm2d(self.channels)
        left = max(1, max(1, height // 2) // 2) * max(1, max(1, width // 2) // 2)  # positions after both pools
        self.third, self.last = nn.Linear(self.channels * left, self.hidden), nn.Linear(self.hidden, 1)
        for convolution in (self.first, self.second):
            nn.init.normal_(convolution.weight, 0, math.sqrt(2 / (9 * self.channels)))
        for layer in (self.third, self.last):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.ones_(layer.bias)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        check_length(self, query.shape[2])
        of_class = targets.mT @ support  # (T, W, D): sums
        if self.pool == "mean":
            of_class = of_class / targets.sum(1)[..., None]
        # Convolution is linear: a pair's is the sum of the convolutions of its two maps, which many pairs share.
        weights = self.first.weight.split(self.shape[0], 1)
        of_class, of_query = (
            F.conv2d(maps.unflatten(2, self.shape).flatten(0, 1), weight, padding=1).unflatten(0, maps.shape[:2])
            for maps, weight in zip((of_class, query), weights, strict=True)
        )  # (T, W, C, H, W), (T, Q, C, H, W)
        if self.training:  # batch norm takes its statistics from all pairs
            return self._compare(of_class, of_query)
        pairs_bytes = of_class[0].nbytes * of_query.shape[1]
        at_once = max(1, _PAIRS_BYTES.get(query.device.type, _PAIRS_BYTES["cpu"]) // pairs_bytes)
        parts = zip(of_class.split(at_once), of_query.split(at_once), strict=True)
        return torch.cat([self._compare(*part) for part in parts])

    def _compare(self, of_class: Tensor, of_query: Tensor) -> Tensor:
        """Logits (T, Q, W) from the halves of the first convolution: (T, W, C, H, W) and (T, Q, C, H, W)."""
        x = (of_query[:, :, None] + of_class[:, None]).flatten(0, 2)  # (T*Q*W, C, H, W)
        x = F.relu(_halve(self.first_norm(x)))
        x = F.relu(_halve(self.second_norm(self.second(x))))
        logits = self.last(F.relu(self.third(x.flatten(1))))
        return logits.view(len(of_query), of_query.shape[1], of_class.shape[1])

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See Head.loss, and the docstring of the class."""
        if not self.squares:
            return super().loss(logits, labels)
        return F.mse_loss(logits.sigmoid(), F.one_hot(labels, logits.shape[2]).to(logits.dtype))

    def extra_repr(self) -> str:
        return f"pool={self.pool}, loss={'mse' if self.squares else 'cross-entropy'}"


def _halve(x: Tensor) -> Tensor:
    """2x2 max pool; a side of 1 stays."""
    return F.max_pool2d(x, tuple(min(2, side) for side in x.shape[2:]))
