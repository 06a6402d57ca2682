"""LR-D2 against ridge regression after one step, the paper's step after several, and scikit-learn in the limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from neighbours import neighbour
from tasks import check_gradient, one_hot, task

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads.r2d2 import ridge


def with_ones(x):
    return torch.cat([x, torch.ones(*x.shape[:2], 1).to(x)], 2)


@pytest.mark.parametrize("shots, features", [(1, 40), (5, 40), (6, 8)])
def test_one_step_is_ridge_regression_on_plus_and_minus_two(shots, features):
    support, labels, query = task(shots, features)
    weights = ridge(with_ones(support), 4 * one_hot(labels, 5).mT - 2, 4 * 0.7)
    logits = heads.build("lrd2:lam=0.7,iterations=1")(support, labels, query)
    assert torch.allclose(logits, with_ones(query) @ weights, atol=1e-9)


@pytest.mark.parametrize("shots, features", [(1, 40), (5, 64), (6, 8)])
def test_equals_the_papers_steps(shots, features):
    """Weighted least squares with s and z as the paper has them, in NumPy and without Woodbury's identity."""
    support, labels, query = task(shots, features)
    logits = {
        dtype: heads.build("lrd2")(support.to(dtype), labels, query.to(dtype))
        for dtype in (torch.float64, torch.float32)
    }
    for t in range(3):
        x = with_ones(support)[t].numpy()
        for way in range(5):
            y, w = (labels[t] == way).double().numpy(), np.zeros(features + 1)
            for _ in range(5):
                p = 1 / (1 + np.exp(-x @ w))
                s = p * (1 - p)
                z = x @ w + (y - p) / s
                w = np.linalg.solve(x.T @ (s[:, None] * x) + np.eye(features + 1), x.T @ (s * z))
            expected = with_ones(query)[t].numpy() @ w
            assert np.abs(logits[torch.float64][t, :, way].numpy() - expected).max() < 1e-8
            assert np.abs(logits[torch.float32][t, :, way].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("lam", [0.1, 5.0])
def test_many_steps_are_scikit_learns_regression(lam):
    support, labels, query = task(4, 20)
    logits = heads.build(f"lrd2:lam={lam},iterations=25")(support, labels, query)
    for t in range(3):
        for way in range(5):
            found = neighbour("sklearn.linear_model").LogisticRegression(
                C=1 / lam, fit_intercept=False, solver="newton-cholesky", tol=1e-10
            )
            found.fit(with_ones(support)[t].numpy(), (labels[t] == way).numpy())
            expected = found.decision_function(with_ones(query)[t].numpy())
            assert np.abs(logits[t, :, way].numpy() - expected).max() < 1e-7


def test_in_two_way_tasks_one_score_is_the_others_negative():
    support, labels, query = task(3, 10, ways=2)
    logits = heads.build("lrd2")(support, labels, query)
    assert torch.allclose(logits[..., 0], -logits[..., 1], atol=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("features", [40, 3])
def test_finite_at_every_scale(features, scale):
    """Where it is sure, s is zero up to rounding, and the paper's z would be infinite."""
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task(5, features, scale=scale))
    support = support.requires_grad_()
    logits = heads.build("lrd2")(support, labels, query)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert support.grad.isfinite().all()


@pytest.mark.parametrize("spec", ["lrd2", "lrd2:iterations=2,lam=3,learn_lam=true"])
def test_its_gradient_goes_through_the_steps(spec):
    check_gradient(heads.build(spec), 2, 4)


def test_options():
    assert list(heads.build("lrd2").parameters()) == []
    assert heads.build("lrd2:lam=0.5,learn_lam=true").lam.item() == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(UserError, match="lrd2:lam=0.0 is not a positive number"):
        heads.build("lrd2:lam=0")
    with pytest.raises(UserError, match="lrd2:iterations=0: give an integer from 1"):
        heads.build("lrd2:iterations=0")
