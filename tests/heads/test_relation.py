"""Relation Network against the paper's network written out, pair by pair."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewshot import heads
from fewshot.core.errors import UserError

SHAPES = [(3, 5, 5), (4, 2, 2), (2, 7, 3), (6, 1, 1)]  # with sides that a pool halves, that it cuts, and that it leaves


def trained(spec, shape):
    """A head whose parameters and running statistics are no longer the initial ones."""
    torch.manual_seed(0)
    head = heads.build(spec, shape[0] * shape[1] * shape[2], shape)
    with torch.no_grad():
        for tensor in [*head.parameters(), *head.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand_like(tensor))
    return head.double()


def task(shape, tasks=2, ways=3, shots=2, queries=4):
    torch.manual_seed(1)
    features = shape[0] * shape[1] * shape[2]
    labels = torch.stack([torch.arange(ways).repeat(shots)[torch.randperm(ways * shots)] for _ in range(tasks)])
    support = torch.randn(tasks, ways * shots, features, dtype=torch.float64)
    return support, labels, torch.randn(tasks, ways * queries, features, dtype=torch.float64)


def literal(head, shape, support, labels, query, combine, training=False):
    """One network for all pairs, side by side: class first."""
    pairs = [
        torch.cat([combine(support[t][labels[t] == way], 0).view(shape), q.view(shape)])
        for t in range(len(support))
        for q in query[t]
        for way in range(int(labels.max()) + 1)
    ]

    def norm(x, layer):
        return F.batch_norm(
            x, layer.running_mean.clone(), layer.running_var.clone(), layer.weight, layer.bias, training, 0.1, 1e-5
        )

    def pool(x):
        return F.max_pool2d(x, (2 if x.shape[2] > 1 else 1, 2 if x.shape[3] > 1 else 1))

    x = pool(F.relu(norm(F.conv2d(torch.stack(pairs), head.first.weight, padding=1), head.first_norm)))
    x = pool(F.relu(norm(F.conv2d(x, head.second.weight, padding=1), head.second_norm)))
    x = F.relu(x.flatten(1) @ head.third.weight.mT + head.third.bias)
    return (x @ head.last.weight.mT + head.last.bias).view(len(support), query.shape[1], -1)


@pytest.mark.parametrize(
    "spec, combine", [("relation", torch.mean), ("relation:pool=sum,hidden=3,channels=5", torch.sum)]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_network_on_every_pair(spec, combine, shape):
    head, given = trained(spec, shape), task(shape)
    expected = literal(head, shape, *given, combine)
    assert torch.allclose(head.eval()(*given), expected, rtol=0, atol=1e-10)
    assert expected.std() > 1e-3
    expected = literal(head, shape, *given, combine, training=True)
    assert torch.allclose(head.train()(*given), expected, rtol=0, atol=1e-10)


def test_learns_running_statistics_and_evaluates_in_parts(monkeypatch):
    from fewshot.heads import relation

    shape = (3, 5, 5)
    head, given = trained("relation", shape), task(shape, tasks=5)
    at_once = head.eval()(*given)
    monkeypatch.setitem(relation._PAIRS_BYTES, "cpu", 1)
    assert torch.allclose(head(*given), at_once, rtol=0, atol=1e-12)
    head.train()(*given)
    assert not torch.allclose(head.eval()(*given), at_once)


def test_first_weights_are_the_papers():
    head = heads.build("relation", 64 * 25, (64, 5, 5))
    assert head.first.weight.shape == (64, 128, 3, 3) and head.third.weight.shape == (8, 64)
    assert head.first.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert (head.third.bias == 1).all() and (head.last.bias == 1).all()
    assert sum(p.numel() for p in head.parameters()) == 128 * 64 * 9 + 64 * 64 * 9 + 4 * 64 + 64 * 8 + 8 + 8 + 1


def test_squared_error_is_of_scores_between_0_and_1():
    logits, labels = torch.randn(2, 6, 3), torch.randint(3, (2, 6))
    scores = 1 / (1 + (-logits).exp())
    wanted = torch.zeros(2, 6, 3)
    for t in range(2):
        for q in range(6):
            wanted[t, q, labels[t, q]] = 1
    loss = heads.build("relation:loss=mse").loss(logits, labels)
    assert loss.item() == pytest.approx((scores - wanted).square().mean().item(), rel=1e-6)
    plain = heads.build("relation").loss(logits, labels)
    assert plain.item() == pytest.approx(F.cross_entropy(logits.view(12, 3), labels.view(12)).item(), rel=1e-6)


def test_options_out_of_range_and_other_embeddings_are_one_line():
    for option in ("channels", "hidden"):
        with pytest.raises(UserError, match=f"relation:{option}=0 is not 1 or more"):
            heads.build(f"relation:{option}=0")
    with pytest.raises(UserError, match="Relation works on maps, and these embeddings are not known to be"):
        heads.build("relation", 75)
    with pytest.raises(UserError, match="made for embeddings of 75 features, and these have 12"):
        heads.build("relation", 75, (3, 5, 5))(torch.randn(1, 2, 12), torch.tensor([[0, 1]]), torch.randn(1, 1, 12))
    with pytest.raises(UserError, match="Relation must know the form of embeddings first"):
        heads.build("relation")(torch.randn(1, 2, 12), torch.tensor([[0, 1]]), torch.randn(1, 1, 12))


def test_every_layer_is_drawn_as_in_the_papers_code():
    torch.manual_seed(0)
    head = heads.build("relation:channels=32,hidden=64", 16 * 64, (16, 8, 8))
    convolution = (2 / (9 * 32)) ** 0.5
    for name, spread, tolerance in (
        ("first", convolution, 0.05), ("second", convolution, 0.05), ("third", 0.01, 0.05), ("last", 0.01, 0.3),
    ):  # fmt: skip
        weight = getattr(head, name).weight
        assert weight.std().item() == pytest.approx(spread, rel=tolerance)
        assert weight.mean().abs() < 0.5 * spread
