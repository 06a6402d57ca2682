"""The support vector machine against scikit-learn's, against qpth, and against its own optimality conditions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from commands import SMALL
from neighbours import neighbour
from tasks import check_gradient, one_hot, task

from fewshot import heads, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.heads import Products
from fewshot.runs import Run

SIZES = pytest.mark.parametrize("shots, features", [(1, 40), (5, 64), (5, 3)])


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")  # it gives up before 1e-10, near enough
@pytest.mark.parametrize("C", [0.1, 10.0])
@SIZES
def test_equals_scikit_learns(shots, features, C):
    """With one more feature for each image, which only that image has: MetaOptNet's K + I."""
    support, labels, query = task(shots, features, scale=0.5)
    head = heads.build(f"svm:C={C}")
    ours = {
        dtype: head.to(dtype)(support.to(dtype), labels, query.to(dtype)) for dtype in (torch.float64, torch.float32)
    }
    for t in range(3):
        found = neighbour("sklearn.svm").LinearSVC(
            multi_class="crammer_singer", C=C, fit_intercept=False, tol=1e-10, max_iter=200_000, random_state=0
        )
        found.fit(np.hstack([support[t].numpy(), np.eye(5 * shots)]), labels[t].numpy())
        expected = query[t].numpy() @ found.coef_[:, :features].T
        assert np.abs(ours[torch.float64][t].detach().numpy() - expected).max() < 1e-4
        assert np.abs(ours[torch.float32][t].detach().numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("C", [1e-3, 0.1, 1e3])
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e2])
@SIZES
def test_the_optimality_conditions_hold_at_every_scale(shots, features, scale, C):
    """For each image, y - (K + I) a has its smallest value in every class whose a is below C y."""
    support, labels, _ = task(shots, features, scale=scale)
    head, y = heads.build(f"svm:C={C}").double(), one_hot(labels, 5)
    a = head.coefficients(support @ support.mT, y.mT)[0].mT.detach()
    gram = support @ support.mT + torch.eye(5 * shots, dtype=torch.float64)
    slack = (C * y - a) / a.abs().amax((1, 2), keepdim=True)
    multiplier = y - a @ gram
    multiplier = multiplier - multiplier.amin(1, keepdim=True)
    assert a.sum(1).abs().max() < 1e-10 * a.abs().max()
    assert slack.min() > -1e-6
    assert torch.minimum(slack, multiplier).max() < 1e-5


@pytest.mark.parametrize("scale", [1e4, 1e7])
@pytest.mark.parametrize("features", [40, 3, 1])
def test_embeddings_too_large_to_solve_for_give_finite_logits(features, scale):
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task(5, features, scale=scale))
    assert heads.build("svm")(support, labels, query).isfinite().all()


@pytest.mark.parametrize("shots, features, scale, C", [(2, 5, 1.0, 0.1), (1, 4, 3.0, 10.0), (3, 2, 0.5, 1.0)])
def test_its_gradient_is_that_of_the_optimum(shots, features, scale, C):
    check_gradient(heads.build(f"svm:C={C}"), shots, features, scale)


@pytest.mark.parametrize("shots, features, scale", [(1, 40, 0.3), (5, 40, 0.3), (2, 3, 1.0)])
def test_equals_qpths_solution_and_gradient(shots, features, scale):
    neighbour("qpth")
    support, labels, query = task(shots, features, scale=scale)
    found = {}
    for solver in ("batched", "qpth"):
        own = support.clone().requires_grad_()
        logits = heads.build(f"svm:solver={solver}").double()(own, labels, query, ways=5)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
        (logits * weights).sum().backward()
        found[solver] = logits.detach(), own.grad
    for ours, theirs, tolerance in zip(found["batched"], found["qpth"], (1e-6, 1e-4), strict=True):
        assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def test_without_qpth_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "qpth.qp", None)
    with pytest.raises(
        UserError, match=r"needs the package qpth .*: pip install 'fewshot\[svm\]', or leave solver out"
    ):
        heads.build("svm:solver=qpth")


def test_identical_images_of_different_classes_are_no_obstacle():
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task(2, 10))
    logits = heads.build("svm")(support[:, :1].expand_as(support), labels, query)
    assert logits.abs().max() < 1e-4  # nothing tells the classes apart


def test_an_infinite_embedding_spoils_its_own_task_only():
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task())
    head = heads.build("svm")
    expected = head(support, labels, query)
    support[1] *= 1e30
    logits = head(support, labels, query)
    assert logits[1].isnan().all()
    assert torch.allclose(logits[[0, 2]], expected[[0, 2]], atol=1e-5)


def test_many_tasks_are_solved_some_at_a_time():
    support, labels, query = task(1, 8, queries=1)
    many = [x.repeat(100, *(1 for _ in x.shape[1:])) for x in (support, labels, query)]
    head = heads.build("svm").double()
    assert torch.allclose(head(*many, 5)[-3:], head(support, labels, query, 5), atol=1e-10)
    products = head.solve_products(Products.of(many[0], many[2]), one_hot(many[1], 5).mT)
    assert torch.allclose(products[-3:], head(support, labels, query, 5), atol=1e-10)


@pytest.mark.parametrize("head", ["logreg", "lrd2", "svm"])
def test_a_network_is_trained_with_it(head, tmp_path):
    out = str(tmp_path / "run")
    flags = ["--head", head, "--epochs", "1", "--shots", "5", "--test-shots", "5", "--out", out]
    assert console.run(train.main, [*SMALL, *flags]) == 0
    (row,) = Run.open(out).result["results"]
    assert row["head"].startswith(head) and row["accuracy"] > 0.4
