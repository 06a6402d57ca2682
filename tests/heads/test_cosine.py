"""The cosine head against torch's own cosine."""

from __future__ import annotations

import pytest
import torch
from tasks import check_gradient, task

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads.cosine import Cosine
from fewshot.heads.matching import Matching


@pytest.mark.parametrize("prototype", ["mean", "normalised"])
def test_equals_ten_times_the_cosine_to_the_prototype(prototype):
    support, labels, query = task(features=7)
    support = support * torch.linspace(0.1, 3, support.shape[1])[:, None]  # lengths matter to one of the two
    logits = heads.build(f"cosine:prototype={prototype}")(support, labels, query)
    for t in range(3):
        for way in range(5):
            own = support[t][labels[t] == way]
            if prototype == "normalised":
                own = own / own.norm(dim=1, keepdim=True)
            expected = 10 * torch.cosine_similarity(query[t], own.mean(0)[None])
            assert torch.allclose(logits[t, :, way], expected, atol=1e-6)


def test_the_length_of_embeddings_does_not_matter():
    support, labels, query = task()
    head = heads.build("cosine").double()
    expected = head(support, labels, query)
    for factor in (1e-8, 1e8):
        assert torch.allclose(head(support * factor, labels, query / factor), expected, atol=1e-9)


def test_the_scale_starts_where_told_and_learns():
    head = heads.build("cosine:prototype=normalised,scale=3")
    assert head.scale.item() == 3
    check_gradient(head, 2, 4)
    with pytest.raises(UserError, match="cosine:scale=-1.0 is not a positive number"):
        heads.build("cosine:scale=-1")


def test_prototypes_are_plain_means_unless_told_otherwise():
    """Meta-Baseline's: longer embeddings count more."""
    support, labels, query = task(features=7)
    support = support * torch.linspace(0.1, 3, support.shape[1])[:, None]
    logits = heads.build("cosine")(support, labels, query)
    for way in range(5):
        mean = support[0][labels[0] == way].mean(0)
        assert torch.allclose(logits[0, :, way], 10 * torch.cosine_similarity(query[0], mean[None]), atol=1e-6)


@pytest.mark.parametrize("prototype", ["mean", "normalised"])
def test_class_weights_are_the_prototypes_at_length_1(prototype):
    """CamDrop and class activation maps use them."""
    support, labels, _ = task(features=7)
    support = support * torch.linspace(0.1, 3, support.shape[1])[:, None]
    weights = heads.build(f"cosine:prototype={prototype}").class_weights(support, labels)
    for t in range(3):
        for way in range(5):
            own = support[t][labels[t] == way]
            if prototype == "normalised":
                own = own / own.norm(dim=1, keepdim=True)
            expected = own.mean(0) / own.mean(0).norm()
            assert torch.allclose(weights[t, way].double(), expected.double(), atol=1e-6)


def test_a_scale_may_be_an_integer():
    """As `Cosine(scale=20)` is written in Python."""
    assert Cosine(scale=20).scale.item() == 20
    assert Matching(scale=5, learn_scale=True).scale.requires_grad
