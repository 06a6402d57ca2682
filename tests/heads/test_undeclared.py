"""A user's head that looks at other queries and does not say so is refused wherever it is used; honest ones are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from commands import SMALL, one_line_error

import fewshot
from fewshot import evaluate, heads, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.heads import Head
from fewshot.heads._base import prototypes, squared_distances
from fewshot.heads.proto import Proto
from fewshot.heads.relation import Relation

NOISE = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
COMPLAINT = "head {}: the other queries of a task change a query's logits, and its class does not say so: declare"


class Smooths(Proto):
    """ProtoNet, whose logits are smoothed over the queries beside each: these are mostly of its class."""

    by_products = False

    def solve(self, support, targets, query):
        return F.avg_pool1d(super().solve(support, targets, query).mT, 5, 1, 2, count_include_pad=False).mT


class SmoothsProducts(Proto):
    def solve_products(self, products, targets):
        return F.avg_pool1d(super().solve_products(products, targets).mT, 3, 1, 1).mT


class Centres(Head):
    def solve(self, support, targets, query):
        return -squared_distances(query - query.mean(1, keepdim=True), prototypes(support, targets))


class NearestQueries(Head):
    """Each query is averaged with those near it. If they are far apart, as long random vectors are, none changes."""

    def solve(self, support, targets, query):
        near = (-squared_distances(query, query)).softmax(2)
        return -squared_distances(near @ query, prototypes(support, targets))


class Gate(Proto):
    """The effect of other queries is learned, and zero at first."""

    by_products = False

    def __init__(self):
        super().__init__(variant="snell")
        self.gate = torch.nn.Parameter(torch.zeros(()))

    def solve(self, support, targets, query):
        return super().solve(support, targets, query + self.gate * query.roll(1, 1))


class SmoothsInTraining(Smooths):
    def solve(self, support, targets, query):
        return super().solve(support, targets, query) if self.training else Proto.solve(self, support, targets, query)


class InPart(Head):
    """An honest `solve`, but another one in evaluation."""

    def solve(self, support, targets, query):
        return -squared_distances(query, prototypes(support, targets))

    def split(self):
        return torch.tanh, Smooths()


class Declared(Smooths):
    transductive = True


class Normed(Relation):
    """Batch norm, which in training takes its statistics from all queries."""


class Drops(Proto):
    by_products = False

    def solve(self, support, targets, query):
        return super().solve(support, targets, F.dropout(query, 0.5, self.training))


class Draws(Proto):
    """Random numbers for each query, in evaluation, too."""

    by_products = False

    def solve(self, support, targets, query):
        return super().solve(support, targets, query + torch.randn_like(query))


class Based(Head):
    needs_base, trainable = True, False

    def fit_base(self, features, labels):
        self.mean = features.mean(0)

    def solve(self, support, targets, query):
        return (query - self.mean) @ prototypes(support - self.mean, targets).mT


class Descends(Head):
    """A few steps in a gradient's direction, for tasks of three classes only."""

    def check_ways(self, ways):
        if ways != 3:
            raise UserError("three")

    @torch.enable_grad()
    def solve(self, support, targets, query):
        self.check_ways(targets.shape[2])
        weights = support.new_zeros(len(support), 3, support.shape[2]).requires_grad_()
        loss = -(targets * (support @ weights.mT).log_softmax(2)).sum()
        return query @ (weights - torch.autograd.grad(loss, weights)[0]).mT


class Far(Head):
    """Distances by torch, which computes those of more than 25 points differently from those of fewer."""

    def solve(self, support, targets, query):
        return -torch.cdist(query, prototypes(support, targets))


def name(of: type) -> str:
    return f"{__name__}.{of.__name__}"


def score(head, **options):
    settings = {"labels": torch.arange(len(NOISE)) % 10, "shots": 1, "episodes": 20} | options
    return fewshot.benchmark(NOISE, head=head, **settings)[0]


@pytest.mark.parametrize("head", [Smooths, SmoothsProducts, Centres, NearestQueries, InPart])
def test_it_is_refused_by_evaluation(head):
    for given in (head(), name(head)):
        with pytest.raises(UserError, match=COMPLAINT.format(head.__name__) + " transductive = True"):
            score(given)


def test_a_learned_look_at_other_queries_is_refused_by_evaluation():
    head = Gate()
    score(head)
    with torch.no_grad():
        head.gate.fill_(0.5)
    with pytest.raises(UserError, match=COMPLAINT.format("Gate")):
        score(head)


@pytest.mark.parametrize("head", [Smooths, Centres, SmoothsInTraining])
def test_it_is_refused_before_training_begins(head, tmp_path, capsys):
    out = tmp_path / "run"
    assert console.run(train.main, [*SMALL, "--head", name(head), "--out", str(out)]) == 2
    assert COMPLAINT.format(head.__name__) in one_line_error(capsys) and not out.exists()


def test_it_is_refused_before_a_run_is_evaluated_with_it(small_run, monkeypatch, capsys):
    model = fewshot.load(small_run, device="cpu")
    assert model.head_for(name(SmoothsInTraining)).setting == "inductive"  # and it is, outside training
    monkeypatch.setattr("fewshot.evaluation.score.embed_for", lambda *_: pytest.fail("work has begun"))
    assert console.run(evaluate.main, [str(small_run), "--head", name(Smooths), "--episodes", "50"]) == 2
    assert COMPLAINT.format("Smooths") in one_line_error(capsys)


def test_what_looks_at_near_queries_is_found_out_whatever_the_length_of_embeddings():
    with pytest.raises(UserError, match=COMPLAINT.format("NearestQueries")):
        heads.check_alone(NearestQueries().eval(), torch.empty(0, 512), 5, 1, 15)


def test_where_it_is_declared_its_queries_are_shuffled_and_it_is_marked():
    assert abs(score(Declared(), episodes=300).accuracy - 0.2) < 0.02 and score(Declared()).setting == "transductive"


@pytest.mark.parametrize("head", [Normed, Drops, Draws, Based, Descends, Far])
def test_honest_heads_are_not_refused(head):
    torch.manual_seed(0)
    heads.check_declared(name(head), 64 * 4, (64, 2, 2), training=True)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    heads.check_alone(heads.build(name(head), 64 * 4, (64, 2, 2)).eval(), torch.empty(0, 64 * 4), 3, 1, 15)
    if head in (Drops, Draws, Far):
        assert torch.equal(torch.rand(3), expected), "torch's own random numbers are as they were"
        score(head(), ways=3)
    if head is Based:
        score(head(), base=NOISE[:100], base_labels=torch.arange(100) % 5)


def test_ours_are_not_asked(monkeypatch):
    monkeypatch.setattr(Proto, "solve", lambda *args: pytest.fail("it was tried"))
    heads.check_declared("proto", 8, None)
    heads.check_alone(heads.build("proto"), NOISE, 5, 1, 15)
