"""Logistic regression against scikit-learn's, and its implicit gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from neighbours import neighbour
from tasks import check_gradient, one_hot, task

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads import Products


def scikit_learns(support, labels, query, C):
    """Its decision function for one task, (Q, W), solved to 12 digits."""
    found = neighbour("sklearn.linear_model").LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10)
    return found.fit(support.numpy(), labels.numpy()).decision_function(query.numpy())


def centred(logits):
    """(Q, W): softmax does not see what all classes share."""
    logits = np.asarray(logits)
    return logits - logits.mean(1, keepdims=True)


@pytest.mark.parametrize(
    "shots, features, C, offset", [(1, 40, 1.0, 0), (5, 80, 1.0, 2), (5, 40, 0.01, 0), (6, 8, 30.0, 1)]
)
def test_equals_scikit_learns(shots, features, C, offset):
    support, labels, query = task(shots, features, offset=offset)
    head = heads.build(f"logreg:C={C}")
    ours = {dtype: head(support.to(dtype), labels, query.to(dtype)) for dtype in (torch.float64, torch.float32)}
    for t in range(3):
        expected = centred(scikit_learns(support[t], labels[t], query[t], C))
        assert np.abs(centred(ours[torch.float64][t]) - expected).max() < 1e-7
        assert np.abs(centred(ours[torch.float32][t]) - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_in_two_way_tasks_scikit_learns_c_is_twice_ours():
    support, labels, query = task(4, 10, ways=2)
    logits = heads.build("logreg:C=0.3")(support, labels, query)
    for t in range(3):
        expected = scikit_learns(support[t], labels[t], query[t], 0.6)
        assert np.allclose(logits[t, :, 1] - logits[t, :, 0], expected, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize("shots, features", [(1, 40), (5, 40), (5, 3)])
def test_the_optimality_conditions_hold_at_every_scale(shots, features, scale):
    """W = C X' (y - p) and, for the intercepts, a sum of y - p that is zero: seen in the logits of the support."""
    support, labels, _ = task(shots, features, scale=scale)
    head = heads.build("logreg")
    logits = head(support, labels, support)
    error = one_hot(labels, 5) - logits.softmax(2).mT  # (T, W, N)
    assert error.sum(2).abs().max() < 1e-6
    middle = support.mean(1, keepdim=True)
    expected = (support - middle) @ (error @ (support - middle)).mT  # of the logits, but for the intercepts
    shown = logits - logits.mean(1, keepdim=True)
    assert (shown - expected).abs().max() < 1e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize("scale", [1e4, 1e7])
@pytest.mark.parametrize("features", [40, 3, 1])
def test_embeddings_too_large_to_solve_for_give_finite_logits(features, scale):
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task(5, features, scale=scale))
    assert heads.build("logreg")(support, labels, query).isfinite().all()


def test_identical_images_of_different_classes_are_no_obstacle():
    support, labels, query = task(2, 10)
    same = support[:, :1].expand_as(support)
    logits = heads.build("logreg")(same.float(), labels, query.float())
    assert logits.abs().max() < 1e-4  # nothing tells the classes apart


def test_an_infinite_embedding_spoils_its_own_task_only():
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task())
    head = heads.build("logreg")
    expected = head(support, labels, query)
    support[1] *= 1e30
    logits = head(support, labels, query)
    assert logits[1].isnan().all()
    assert torch.allclose(logits[[0, 2]], expected[[0, 2]], atol=1e-5)


def test_products_far_from_the_origin_are_centred():
    support, labels, query = task(5, 64, offset=30)
    head, targets = heads.build("logreg"), one_hot(labels, 5).mT
    products = head.solve_products(Products.of(support, query), targets)
    assert torch.allclose(products, head(support, labels, query), atol=1e-8)


@pytest.mark.parametrize("shots, features, C", [(2, 5, 1.0), (1, 3, 100.0), (3, 2, 5.0)])
def test_its_gradient_is_that_of_the_minimum(shots, features, C):
    check_gradient(heads.build(f"logreg:C={C}"), shots, features)


def test_options():
    assert list(heads.build("logreg").parameters()) == []
    with pytest.raises(UserError, match="logreg:C=0.0 is not a positive number"):
        heads.build("logreg:C=0")


@pytest.mark.parametrize("shots", [1, 5])
def test_a_common_offset_costs_no_digits(shots):
    """Squares of such embeddings are a million; what tells images apart is about 1."""
    support, labels, query = task(shots, 40, offset=1000)
    support, query, head = support.float(), query.float(), heads.build("logreg")
    logits = head(support, labels, query)
    expected = head(support.double() - 1000, labels, query.double() - 1000)
    for t in range(3):
        assert np.abs(centred(logits[t]) - centred(expected[t])).max() < 1e-3
