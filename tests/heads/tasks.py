"""Tasks for the tests of single heads, and their gradients held against finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.heads import Head


def task(
    shots: int = 4, features: int = 40, *, ways: int = 5, queries: int = 3, scale: float = 1.0, offset: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Three tasks of noise around class centres, in float64: support (3, N, D), labels (3, N), query (3, Q, D)."""
    noise = torch.Generator().manual_seed(0)
    centres = torch.randn(3, ways, features, generator=noise, dtype=torch.float64)
    support, query = (
        centres.repeat_interleave(n, 1) + torch.randn(3, ways * n, features, generator=noise, dtype=torch.float64)
        for n in (shots, queries)
    )
    labels = torch.arange(ways).repeat_interleave(shots).expand(3, -1)
    return support * scale + offset, labels, query * scale + offset


def one_hot(labels: Tensor, ways: int) -> Tensor:
    """(T, W, N), float64."""
    return torch.eye(ways, dtype=torch.float64)[labels].mT


def check_gradient(head: Head, shots: int, features: int, scale: float = 1.0) -> None:
    """Of the logits, by every embedding, and by every parameter: against finite differences, in float64."""
    support, labels, query = task(shots, features, ways=3, queries=1, scale=scale)
    head = head.double()

    def logits(support: Tensor, query: Tensor, *_: Tensor) -> Tensor:
        return head(support, labels, query, ways=3)

    inputs = (support.requires_grad_(), query.requires_grad_(), *head.parameters())
    assert torch.autograd.gradcheck(logits, inputs, eps=1e-6, atol=1e-5, rtol=1e-4)
