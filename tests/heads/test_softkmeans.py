"""Soft k-means against the paper's equations, one image and class at a time, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot import heads
from fewshot.core.errors import UserError


def one_task(seed: int, shots: int, queries: int = 7, features: int = 6, ways: int = 4):
    """support (N, D), labels (N,), query (Q, D), float64; classes in random order, queries unbalanced."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(ways, features))
    labels, truth = draw.permutation(np.repeat(np.arange(ways), shots)), draw.integers(0, ways, ways * queries)
    noise = draw.normal(size=(len(labels) + len(truth), features))
    return centres[labels] + noise[: len(labels)], labels, centres[truth] + noise[len(labels) :]


def refined(support, labels, query, steps: int, factor: float) -> np.ndarray:
    """Logits (Q, W): factor * -||q - p||^2, after `steps` of soft k-means under the same distances."""
    prototypes = [support[labels == c].mean(0) for c in range(labels.max() + 1)]

    def logits():
        return np.array([[-factor * ((q - p) ** 2).sum() for p in prototypes] for q in query])

    for _ in range(steps):
        shares = [np.exp(row) / np.exp(row).sum() for row in logits()]
        for c in range(len(prototypes)):
            upper = support[labels == c].sum(0) + sum(share[c] * q for share, q in zip(shares, query, strict=True))
            prototypes[c] = upper / ((labels == c).sum() + sum(share[c] for share in shares))
    return logits()


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("variant", ["snell", "metaopt"])
def test_equals_the_papers_equations(variant, steps):
    head = heads.build(f"softkmeans:variant={variant},steps={steps}").eval()
    factor = 1.0
    if variant == "metaopt":
        factor = 7 / 6
        torch.nn.init.constant_(head.scale, 7.0)
    for seed, shots in ((0, 1), (1, 5)):
        support, labels, query = one_task(seed, shots)
        expected = refined(support, labels, query, steps, factor)
        for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, 1e-3)):
            given = (torch.from_numpy(part).to(dtype)[None] for part in (support + 3, query + 3))
            support_, query_ = given
            logits = head.to(dtype)(support_, torch.from_numpy(labels)[None], query_)[0].detach().double().numpy()
            assert np.abs(logits - expected).max() < tolerance


@pytest.mark.parametrize("variant", ["snell", "metaopt"])
def test_without_a_step_it_is_proto(variant):
    torch.manual_seed(0)
    support, labels, query = torch.randn(3, 10, 40), torch.arange(5).repeat(3, 2), torch.randn(3, 20, 40)
    logits = [heads.build(spec)(support, labels, query) for spec in (f"softkmeans:steps=0,variant={variant}",
                                                                     f"proto:variant={variant}")]  # fmt: skip
    assert torch.allclose(*logits, rtol=1e-4, atol=1e-4)


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(UserError, match="softkmeans:steps=-1: give 0 or more"):
        heads.build("softkmeans:steps=-1")


def test_a_common_offset_costs_no_digits():
    """Squares of such embeddings are a million; what tells images apart is about 1. By default one step is taken."""
    support, labels, query = one_task(1, 5)
    support, query = ((part + 1000).astype(np.float32) for part in (support, query))
    expected = refined(support.astype(np.float64), labels, query.astype(np.float64), 1, 1.0)
    given = (torch.from_numpy(part)[None] for part in (support, labels, query))
    assert np.abs(heads.build("softkmeans")(*given)[0].numpy() - expected).max() < 1e-3
