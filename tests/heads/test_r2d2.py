"""R2D2 against NumPy's float64 solution of the primal normal equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads import Products
from fewshot.heads.r2d2 import ridge


def task(shots, features, tasks=3, ways=5, queries=6):
    torch.manual_seed(0)
    support = torch.randn(tasks, ways * shots, features)
    labels = torch.arange(ways).repeat(shots).expand(tasks, -1)
    return support, labels, torch.randn(tasks, ways * queries, features)


def primal(x, y, lam):
    """(X'X + lam I)^-1 X'Y in float64, one task."""
    x, y = x.numpy().astype(np.float64), y.numpy().astype(np.float64)
    return np.linalg.solve(x.T @ x + lam * np.eye(x.shape[1]), x.T @ y)


SHAPES = pytest.mark.parametrize("shots, features", [(1, 640), (5, 64), (15, 20), (4, 20)])


@SHAPES
def test_metaopt_variant_equals_numpy(shots, features):
    support, labels, query = task(shots, features)
    logits = heads.build("r2d2")(support, labels, query)
    for t in range(3):
        weights = primal(support[t], torch.eye(5)[labels[t]], 50.0)
        assert np.abs(logits[t].detach().numpy() - query[t].numpy() @ weights).max() <= 2e-6 * max(1, features / 100)


@SHAPES
def test_papers_variant_equals_numpy(shots, features):
    support, labels, query = task(shots, features)
    head = heads.build("r2d2:variant=r2d2,lam=0.1")
    with torch.no_grad():
        head.scale.fill_(2.0)
        head.bias.fill_(-0.3)
    logits = head(support, labels, query)
    root = np.sqrt(5 * shots)
    for t in range(3):
        x = torch.cat([support[t], torch.ones(5 * shots, 1)], 1) / root
        weights = primal(x, torch.eye(5)[labels[t]] / root, 0.1)
        expected = 2 * (np.concatenate([query[t].numpy(), np.ones((30, 1))], 1) @ weights) - 0.3
        assert np.abs(logits[t].detach().numpy() - expected).max() <= 1e-3


def test_primal_equals_woodbury():
    """The same X through either system: wide by padding with features that are zero."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 30, 20, dtype=torch.float64), torch.randn(2, 30, 5, dtype=torch.float64)
    padded = torch.cat([x, torch.zeros(2, 30, 20, dtype=torch.float64)], 2)
    assert torch.allclose(ridge(padded, y, 3.0)[:, :20], ridge(x, y, 3.0), atol=1e-12)


def test_learned_lambda_starts_where_told_stays_positive_and_learns():
    head = heads.build("r2d2:lam=0.5,learn_lam=true")
    assert head.lam.item() == pytest.approx(0.5, rel=1e-5)
    assert heads.build("r2d2:lam=50,learn_lam=true").lam.item() == pytest.approx(50, rel=1e-5)
    support, labels, query = task(2, 16)
    head(support, labels, query).square().sum().backward()
    assert head.raw_lam.grad.abs() > 0
    with torch.no_grad():
        head.raw_lam.fill_(-20)
    assert head.lam > 0


def test_initial_values_and_options():
    own = heads.build("r2d2:variant=r2d2")
    assert own.scale.item() == pytest.approx(1e-4) and own.bias.item() == 0
    assert [name for name, _ in heads.build("r2d2").named_parameters()] == ["scale"]
    with pytest.raises(UserError, match="lam=0.0 is not a positive number"):
        heads.build("r2d2:lam=0")


def test_solves_in_float32_under_autocast():
    support, labels, query = task(5, 64)
    head = heads.build("r2d2")
    expected = head(support, labels, query)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(support, labels, query), expected)


@pytest.mark.parametrize("variant", ["metaopt", "r2d2"])
def test_evaluation_solves_with_what_training_has_learned(variant):
    """By embeddings and by inner products: the present lambda, scale and intercept, not those that it began with."""
    head = heads.build(f"r2d2:variant={variant},learn_lam=true")
    support, labels, query = task(2, 30)
    targets, lam = torch.eye(5)[labels], np.log1p(np.exp(0.5))
    with torch.no_grad():
        head.raw_lam.fill_(0.5)
        head.scale.fill_(-2.0)
        if variant == "r2d2":
            head.bias.fill_(0.7)
        both = head(support, labels, query), head.solve_products(Products.of(support, query), targets)
    for t in range(3):
        x, q, y, shift = support[t], query[t], targets[t], 0.0
        if variant == "r2d2":
            x, q = (torch.nn.functional.pad(part, (0, 1), value=1.0) for part in (x, q))
            x, y, shift = x / 10**0.5, y / 10**0.5, 0.7
        expected = -2 * (q.numpy() @ primal(x, y, lam)) + shift
        for logits in both:
            assert np.abs(logits[t].numpy() - expected).max() < 1e-4
