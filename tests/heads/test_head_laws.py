"""Every head x option obeys the common laws (fewshot/testing/heads.py): one row each. Those that do not are told."""

from __future__ import annotations

import re

import pytest
import torch

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads import Head, Products
from fewshot.heads._base import prototypes
from fewshot.testing.heads import TABLE, check_head

SPECS = [
    "anil",
    "anil:order=first,learn_lr=true",
    "anil:init=zero,steps=20",
    "cosine",
    "cosine:prototype=normalised",
    "logreg",
    "lrd2",
    "lrd2:lam=10,iterations=2,learn_lam=true",
    "matching",
    "matching:scale=20,learn_scale=true",
    "proto",
    "proto:variant=snell",
    "r2d2",
    "r2d2:lam=0.5,learn_lam=true",
    "r2d2:variant=r2d2",
    "r2d2:variant=r2d2,learn_lam=true",
    "relation",
    "relation:pool=sum,loss=mse",
    "simpleshot",
    "simpleshot:norm=l2n",
    "simpleshot:norm=un",
    "svm",
    "svm:C=10",
    "softkmeans",
    "softkmeans:variant=metaopt,steps=3",
    "laplacian",
    "laplacian:rectify=false,neighbours=5",
    "tim",
    "tim:marginal=0,steps=5",
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For tensors this small, several threads only wait for each other: 40 s instead of 5 on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("law, size", TABLE, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("spec", SPECS)
def test_law(spec, law, size):
    law(spec, size)


def test_every_head_is_in_the_table():
    assert {re.match(r"\w+", spec)[0] for spec in SPECS} == set(heads.FAMILY.names())


class Honest(Head):
    """A user's own head that obeys: inner products with the class means."""

    by_products = True

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def solve(self, support, targets, query):
        return query @ prototypes(support, targets).mT * self.scale

    def solve_products(self, products: Products, targets):
        return products.query @ (targets / targets.sum(1, keepdim=True)) * self.scale

    def fit(self, support, targets):
        return prototypes(support, targets)


class Plain(Honest):
    by_products = False


class Based(Honest):
    """One that subtracts the base mean, and so needs it."""

    by_products, needs_base, trainable = False, True, False

    def fit_base(self, features, labels):
        self.mean = features.mean(0)

    def solve(self, support, targets, query):
        return super().solve(support - self.mean, targets, query - self.mean)


class InnerGradient(Head):
    """Logistic regression on the support images, three steps of gradient descent."""

    trainable = False

    @torch.enable_grad()
    def solve(self, support, targets, query):
        weights = support.new_zeros(len(support), targets.shape[2], support.shape[2]).requires_grad_()
        for _ in range(3):
            loss = -(targets * (support @ weights.mT).log_softmax(2)).sum(2).mean(1).sum()
            weights = weights - torch.autograd.grad(loss, weights)[0]
        return query @ weights.mT


@pytest.mark.parametrize("name", ["Honest", "Plain", "Based", "InnerGradient"])
def test_users_heads_that_obey_pass(name):
    check_head(f"{__name__}.{name}")


class FavoursClassZero(Plain):
    def solve(self, support, targets, query):
        return super().solve(support, targets, query) + torch.eye(targets.shape[2])[0]


class LooksAtTheFirstSupport(Plain):
    def solve(self, support, targets, query):
        return super().solve(support, targets, query - support[:, :1])


class ReadsPlaces(Plain):
    transductive = True

    def solve(self, support, targets, query):
        return super().solve(support, targets, query) + torch.arange(query.shape[1])[:, None] * query.sum(2, True)


class CentresOnQueries(Plain):
    def solve(self, support, targets, query):
        centre = query.mean(1, keepdim=True)
        return super().solve(support - centre, targets, query - centre)


class MixesTasks(Plain):
    def solve(self, support, targets, query):
        return super().solve(support - support.mean(0), targets, query)


class WrongProducts(Honest):
    def solve_products(self, products, targets):
        return products.query @ targets * self.scale


class OnlyFloat32(Honest):
    def solve_products(self, products, targets):
        return super().solve_products(products, targets).float()


class NotInvariant(Honest):
    shift_invariant = True


class UnderAutocast(Plain):
    def forward(self, support, labels, query, ways=None):
        return self.solve(support.float(), torch.nn.functional.one_hot(labels, ways).float(), query.float())


class Half(Plain):
    def solve(self, support, targets, query):
        return super().solve(support, targets, query).bfloat16()


class Detached(Plain):
    def solve(self, support, targets, query):
        return super().solve(support.detach(), targets, query)


class NoGradient(Plain):
    def solve(self, support, targets, query):
        return super().solve(support, targets, query).detach()


class IdleParameter(Plain):
    def __init__(self):
        super().__init__()
        self.idle = torch.nn.Parameter(torch.ones(3))


class FlippedWeights(Plain):
    def fit(self, support, targets):
        return -prototypes(support, targets)


class MixedUpWeights(Plain):
    def fit(self, support, targets):
        return prototypes(support, targets).roll(1, 1)


class Standardises(Plain):
    def solve(self, support, targets, query):
        return super().solve(support / support.std((1, 2), keepdim=True), targets, query)


class ForgetsAPart(Plain):
    def split(self):
        return torch.tanh, Plain()


class SolvesQueriesAlone(Plain):
    transductive = True


class KnowsNoNumbers(Plain):
    numbered = True


class SaysFirstOrder(Plain):
    first_order = True


class Forgets(Plain):
    def begin(self, features, shape):
        self.projection = torch.randn(features, features)

    def solve(self, support, targets, query):
        return super().solve(support @ self.projection.to(support.dtype), targets, query)


class AlwaysFloat32(Plain):
    def solve(self, support, targets, query):
        return super().solve(support.float(), targets.float(), query.float())


class Random(Plain):
    def solve(self, support, targets, query):
        logits = super().solve(support, targets, query)
        return logits + 1e-6 * torch.randn_like(logits)


class Remembers(Plain):
    seen = 0

    def solve(self, support, targets, query):
        self.seen += 1
        return super().solve(support, targets, query) * self.seen


class ForgetsToEnable(InnerGradient):
    solve = InnerGradient.solve.__wrapped__


class Overwrites(Plain):
    def solve(self, support, targets, query):
        with torch.no_grad():
            query -= 0.1
        return super().solve(support, targets, query)


class Piles(Based):
    mean = 0

    def fit_base(self, features, labels):
        self.mean = self.mean + features.mean(0)


class OneLogitTooMany(Plain):
    def solve(self, support, targets, query):
        logits = super().solve(support, targets, query)
        return torch.cat([logits, logits[..., :1]], 2)


@pytest.mark.parametrize(
    "name, complaint",
    [
        ("FavoursClassZero", "the classes' numbers matter"),
        ("LooksAtTheFirstSupport", "the order of support images matters"),
        ("ReadsPlaces", "the order of queries matters"),
        ("CentresOnQueries", "other queries of a task change a query's logits.*declare transductive"),
        ("MixesTasks", "tasks of a batch see each other"),
        ("WrongProducts", "products and embeddings give other logits"),
        ("OnlyFloat32", "gives logits of torch.float64 and torch.float32"),
        ("NotInvariant", "declares shift_invariant, and is not"),
        ("UnderAutocast", "logits are torch.bfloat16 under autocast"),
        ("Half", "logits are torch.bfloat16 from random"),
        ("Detached", "the gradient at support is missing"),
        ("NoGradient", "its logits have no gradient"),
        ("IdleParameter", "the gradient at idle is missing"),
        ("FlippedWeights", "class weights are not in the logits' order"),
        ("MixedUpWeights", "class weights are not in the logits' order"),
        ("Standardises", "not finite from constant embeddings"),
        ("SolvesQueriesAlone", "declares transductive, and other queries change no logits"),
        ("ForgetsAPart", "its parts give other logits than the whole"),
        ("KnowsNoNumbers", "declares numbered, and the classes' numbers make no difference"),
        ("SaysFirstOrder", "declares first_order, and there is a gradient at support"),
        ("Forgets", "its state_dict lacks what it has drawn"),
        ("AlwaysFloat32", "gives logits of torch.float32 from float64"),
        ("Random", "other logits the second time"),
        ("Remembers", "other logits the second time"),
        ("ForgetsToEnable", "does not require grad"),
        ("Overwrites", "overwrites its input"),
        ("Piles", "fit_base remembers"),
        ("OneLogitTooMany", "logits of shape .3, 20, 6., not .3, 20, 5."),
    ],
)
def test_a_users_head_that_breaks_a_law_is_told_which(name, complaint):
    with pytest.raises(Exception, match=f"(?s){complaint}"):
        check_head(f"{__name__}.{name}")


def test_what_is_declared_must_be_implemented():
    for declared, method in (("by_products", "solve_products"), ("needs_base", "fit_base")):
        with pytest.raises(UserError, match=f"head Bad declares {declared}: implement {method}"):
            type("Bad", (Head,), {declared: True})


def test_heads_that_cannot_be_trained_with_are_refused():
    heads.check_trainable(heads.build("r2d2"))
    with pytest.raises(UserError, match="no network can be trained with head InnerGradient"):
        heads.check_trainable(InnerGradient())
    with pytest.raises(UserError, match="head Wants needs features of the base classes, which training episodes lack"):
        heads.check_trainable(type("Wants", (Based,), {"trainable": True})())


@pytest.mark.parametrize(
    "spec, learned",
    [
        ("cosine", {"scale"}), ("cosine:prototype=normalised,scale=3", {"scale"}), ("matching", set()),
        ("matching:learn_scale=true", {"scale"}), ("r2d2", {"scale"}), ("r2d2:learn_lam=true", {"scale", "raw_lam"}),
        ("r2d2:variant=r2d2", {"scale", "bias"}), ("lrd2:learn_lam=true", {"raw_lam"}), ("svm", {"scale"}),
    ],
)  # fmt: skip
def test_what_a_head_learns_is_a_parameter(spec, learned):
    """What is no parameter is never trained, and no law on gradients sees it."""
    found = dict(heads.build(spec).named_parameters())
    assert found.keys() == learned and all(each.requires_grad for each in found.values())


DEFAULTS = {
    "anil": {"steps": 5, "lr": 3.0, "learn_lr": False, "order": "exact", "init": "learned", "ways": 5},
    "cosine": {"prototype": "mean", "scale": 10.0},
    "laplacian": {"lam": 0.7, "neighbours": 3, "steps": 20, "rectify": True},
    "logreg": {"C": 1.0},
    "lrd2": {"lam": 1.0, "iterations": 5, "learn_lam": False},
    "matching": {"scale": 1.0, "learn_scale": False},
    "proto": {"variant": "metaopt"},
    "r2d2": {"variant": "metaopt", "lam": 50.0, "learn_lam": False},
    "relation": {"pool": "mean", "loss": "cross-entropy", "channels": 64, "hidden": 8},
    "simpleshot": {"norm": "cl2n"},
    "softkmeans": {"steps": 1, "variant": "snell"},
    "svm": {"C": 0.1, "solver": "batched"},
    "tim": {"steps": 150, "temperature": 15.0, "cross_entropy": 0.1, "marginal": 1.0, "conditional": 0.1},
}


@pytest.mark.parametrize("name", heads.FAMILY.names())
def test_defaults_stay_what_they_are(name):
    """Results name a head without its options: with another default it would be another method."""
    options = heads.FAMILY.options(heads.FAMILY.find(name))
    assert {option: default for option, (_, default) in options.items()} == DEFAULTS[name]
