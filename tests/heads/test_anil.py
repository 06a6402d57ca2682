"""ANIL against autograd, a task at a time: gradient descent on the last layer, and the gradient through it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewshot import heads
from fewshot.core.errors import UserError

FEATURES = 6
ROOT = FEATURES**0.5


def task(tasks=3, ways=4, shots=3, queries=5):
    torch.manual_seed(0)
    labels = torch.stack([torch.arange(ways).repeat(shots)[torch.randperm(ways * shots)] for _ in range(tasks)])
    shapes = ((tasks, ways * shots, FEATURES), (tasks, ways * queries, FEATURES))
    support, query = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes)
    return support, labels, query, torch.randint(ways, (tasks, ways * queries))


def begun(spec):
    torch.manual_seed(1)
    return heads.build(spec, FEATURES).double()


def adapted(weight, bias, lr, support, labels, steps, exact):
    """One task's last layer after the inner loop, as MAML's own code does it. Embeddings are divided by sqrt(D)."""
    for _ in range(steps):
        loss = F.cross_entropy(support @ weight.mT + bias, labels)
        slopes = torch.autograd.grad(loss, (weight, bias), create_graph=exact)
        weight, bias = weight - lr * slopes[0], bias - lr * slopes[1]
    return weight, bias


@pytest.mark.parametrize("order", ["exact", "first"])
@pytest.mark.parametrize("steps", [1, 5])
def test_equals_autograd_in_values_and_outer_gradients(order, steps):
    support, labels, query, truth = task()
    head = begun(f"anil:steps={steps},lr=0.3,learn_lr=true,ways=4,order={order}")
    leaves = [query, *head.parameters(), *([support] if order == "exact" else [])]
    logits = head(support, labels, query)
    ours = torch.autograd.grad(head.loss(logits, truth), leaves, retain_graph=True)

    lr, start = head.log_lr.exp(), head.start
    each = []
    for t in range(3):
        z = support[t] / ROOT
        weight, bias = adapted(start.weight, start.bias, lr, z, labels[t], steps, order == "exact")
        each.append(query[t] / ROOT @ weight.mT + bias)
    expected = torch.stack(each)
    theirs = torch.autograd.grad(F.cross_entropy(expected.flatten(0, 1), truth.flatten()), leaves)
    assert torch.allclose(logits, expected, rtol=0, atol=1e-10)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-4
        assert torch.allclose(one, other, rtol=0, atol=1e-10)
    if order == "first":
        assert torch.autograd.grad(head.loss(logits, truth), support, allow_unused=True) == (None,)


def test_zero_is_a_layer_of_zeros_and_so_is_one_vector_for_all_classes():
    support, labels, query, _ = task()
    zero = begun("anil:init=zero,steps=7,lr=0.2")
    assert list(zero.parameters()) == [] and not zero.needs_training and not zero.numbered
    logits = zero(support, labels, query)
    for t in range(3):
        weight, bias = (torch.zeros(shape, dtype=torch.float64).requires_grad_() for shape in ((4, FEATURES), (4,)))
        weight, bias = adapted(weight, bias, 0.2, support[t] / ROOT, labels[t], 7, False)
        assert torch.allclose(logits[t], query[t] / ROOT @ weight.mT + bias, rtol=0, atol=1e-10)

    shared = begun("anil:steps=7,lr=0.2,ways=4")
    with torch.no_grad():
        shared.start.weight[:] = shared.start.weight[:1].clone()
        shared.start.bias[:] = 3
    assert torch.allclose(shared(support, labels, query).softmax(2), logits.softmax(2), rtol=0, atol=1e-10)


def test_tasks_of_fewer_classes_take_the_first_ones_and_of_more_are_refused():
    support, labels, query, _ = task()
    head, same = begun("anil:ways=7"), begun("anil:ways=4")
    with torch.no_grad():
        same.start.weight[:], same.start.bias[:] = head.start.weight[:4], head.start.bias[:4]
    assert torch.allclose(head(support, labels, query), same(support, labels, query), rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="begin for 3 classes, and these tasks have 4: train with anil:ways=4"):
        begun("anil:ways=3")(support, labels, query)
    assert begun("anil:ways=3,init=zero")(support, labels, query).shape == (3, 20, 4)


def test_learned_rate_starts_where_told():
    head = heads.build("anil:lr=0.02,learn_lr=true", FEATURES)
    assert head.lr.item() == pytest.approx(0.02, rel=1e-6)
    assert {name for name, _ in head.named_parameters()} == {"log_lr", "start.weight", "start.bias"}
    assert [name for name, _ in heads.build("anil:learn_lr=true,init=zero").named_parameters()] == ["log_lr"]


@pytest.mark.parametrize("option", ["steps=0", "lr=0", "lr=inf", "ways=1"])
def test_options_out_of_range_are_one_line(option):
    with pytest.raises(UserError, match=f"anil:{option.split('=')[0]}=.* is not "):
        heads.build(f"anil:{option}")


@pytest.mark.parametrize("init", ["learned", "zero"])
def test_class_weights_are_the_adapted_layers(init):
    """CamDrop and class activation maps use them: the weights after the steps, from either start."""
    support, labels, _, _ = task()
    torch.manual_seed(1)
    head = heads.build(f"anil:init={init},steps=4,lr=0.7,ways=4", FEATURES)
    found = head.class_weights(support, labels)
    for t in range(3):
        start = (torch.zeros(4, FEATURES), torch.zeros(4)) if init == "zero" else (head.start.weight, head.start.bias)
        weight, bias = (each.detach().double().requires_grad_() for each in start)
        weight, _ = adapted(weight, bias, 0.7, support[t] / ROOT, labels[t], 4, False)
        assert torch.allclose(found[t].double(), weight, rtol=0, atol=1e-5)
