"""ProtoNet against the distance written out, in float64."""

from __future__ import annotations

import pytest
import torch

from fewshot import heads
from fewshot.heads import Products


def task(tasks=3, ways=5, shots=4, queries=6, features=40):
    torch.manual_seed(0)
    support = torch.randn(tasks, ways * shots, features)
    labels = torch.stack([torch.arange(ways).repeat(shots)[torch.randperm(ways * shots)] for _ in range(tasks)])
    return support, labels, torch.randn(tasks, ways * queries, features)


@pytest.mark.parametrize("spec, divisor", [("proto", 40), ("proto:variant=snell", 1)])
def test_equals_negative_squared_distances_to_class_means(spec, divisor):
    support, labels, query = task()
    logits = heads.build(spec)(support, labels, query)
    for t in range(3):
        means = torch.stack([support[t][labels[t] == way].double().mean(0) for way in range(5)])
        expected = -(torch.cdist(query[t].double(), means) ** 2) / divisor
        assert torch.allclose(logits[t].double(), expected, atol=1e-4)


def test_unequal_shots_average_by_class():
    support, query = torch.randn(1, 3, 8), torch.randn(1, 2, 8)
    logits = heads.build("proto:variant=snell")(support, torch.tensor([[0, 0, 1]]), query)
    means = torch.stack([support[0, :2].mean(0), support[0, 2]])
    assert torch.allclose(logits[0], -(torch.cdist(query[0], means) ** 2), atol=1e-4)


def test_a_common_shift_of_all_embeddings_changes_nothing():
    support, labels, query = task()
    head = heads.build("proto")
    shifted = head(support + 3, labels, query + 3)
    assert torch.allclose(shifted, head(support, labels, query), atol=1e-4)


def test_scale_multiplies_logits_and_learns():
    support, labels, query = task()
    head = heads.build("proto")
    plain = head(support, labels, query).detach()
    with torch.no_grad():
        head.scale.fill_(7.0)
    logits = head(support, labels, query)
    assert torch.allclose(logits, 7 * plain, rtol=1e-5)
    logits.sum().backward()
    assert head.scale.grad == pytest.approx(plain.sum().item(), rel=1e-4)
    assert list(heads.build("proto:variant=snell").parameters()) == []


def test_solves_in_float32_under_autocast():
    support, labels, query = task()
    head = heads.build("proto")
    expected = head(support.bfloat16(), labels, query.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(support.bfloat16(), labels, query.bfloat16())
    assert logits.dtype == torch.float32 and torch.equal(logits, expected)


@pytest.mark.parametrize("spec", ["proto:variant=snell", "softkmeans:steps=0"])
def test_unequal_shots_average_by_class_from_products_too(spec):
    torch.manual_seed(0)
    support, labels, query = torch.randn(1, 6, 8), torch.tensor([[0, 1, 0, 0, 1, 2]]), torch.randn(1, 4, 8)
    logits = heads.build(spec).solve_products(Products.of(support, query), torch.eye(3)[labels])
    means = torch.stack([support[0][labels[0] == way].mean(0) for way in range(3)])
    assert torch.allclose(logits[0], -(torch.cdist(query[0], means) ** 2), atol=1e-4)
