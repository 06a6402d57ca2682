"""The batched evaluation equals the plain way: one episode at a time, images embedded afresh."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import ROOT

import fewshot
from fewshot import heads, transforms
from fewshot.core.compute import choose
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.data.augment import to_unit
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.evaluation import solve
from fewshot.evaluation.embed import Base, embed_split
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies
from fewshot.heads import Head, Products

CPU = choose("cpu", "fp32")


@pytest.mark.parametrize("protocol", [Protocol(5, 1, 15), Protocol(3, 5, 4)], ids=str)
def test_equals_one_episode_at_a_time(small_run, protocol):
    model = fewshot.load(small_run, device="cpu")
    split = open_dataset("glyphs")["test"]
    tasks = Tasks(EpisodeSampler(split, protocol, 0), 30)
    (right,) = score(model, [tasks], CPU)
    for number in range(30):
        episode = tasks.sampler.draw(number, 1)[0]  # (ways, shots + queries)
        with torch.no_grad():
            z = model(to_unit(torch.from_numpy(split.images[episode.ravel()]))).view(*episode.shape, -1)
        prototypes = z[:, : protocol.shots].mean(1)
        nearest = torch.cdist(z[:, protocol.shots :].flatten(0, 1), prototypes).argmin(1)
        truth = torch.arange(protocol.ways).repeat_interleave(protocol.queries)
        assert (right[number] == (nearest == truth).view(protocol.ways, -1).sum(1).numpy()).all()
    assert accuracies(right, protocol.queries)[0] == right[0].sum() / (protocol.ways * protocol.queries)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("spec", ["proto", "proto:variant=snell", "r2d2", "r2d2:variant=r2d2", "r2d2:learn_lam=true"])
def test_inner_products_give_the_logits_of_the_embeddings(spec, shots):
    """For every head that ships: by embeddings, primal where there are few features, and by products alone."""
    torch.manual_seed(0)
    head = heads.build(spec)
    for features in (7, 300):
        support, query = torch.randn(4, 5 * shots, features), torch.randn(4, 35, features)
        labels = torch.arange(5).repeat_interleave(shots).expand(4, -1)
        plain = head(support, labels, query)
        targets = torch.nn.functional.one_hot(labels).float()
        fast = head.solve_products(Products.of(support, query), targets)
        assert torch.allclose(fast, plain, rtol=1e-4, atol=1e-5 * plain.abs().max().item())
    assert head.by_products


@pytest.mark.parametrize("spec", [name for name in heads.FAMILY.names() if heads.FAMILY.find(name).by_products])
def test_both_ways_predict_the_same_but_for_ties(spec, monkeypatch):
    torch.manual_seed(1)
    split = open_dataset("glyphs")["test"]
    centres = torch.randn(len(split.classes), 64)
    embeddings = centres[torch.from_numpy(split.labels)] + 3 * torch.randn(len(split.images), 64)
    protocols = (Protocol(5, 1, 15), Protocol(5, 5, 15), Protocol(5, 5, 3, query_alpha=2.0))
    wanted = [Tasks(EpisodeSampler(split, protocol, 0), 200) for protocol in protocols]
    counts = {}
    for limit in (0, 2**40):
        monkeypatch.setattr(solve, "_GRAM_BYTES", limit)
        counts[limit] = solve.solve_episodes(heads.build(spec), embeddings, wanted)
    for protocol, one, other in zip(protocols, *counts.values(), strict=True):
        assert 0.3 < accuracies(one, protocol.queries).mean() < 0.95
        assert np.abs(one - other).sum() <= 2  # of 15,000 or 3,000 predictions: equal up to the last bit of a float32


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize(
    "spec, scale, offset",
    [
        ("proto", 1, 3000), ("proto", 1e4, 0), ("r2d2", 1e4, 0), ("r2d2", 1, 1500), ("r2d2", 1, -5000),
        ("r2d2:variant=r2d2", 1, 1500),
    ],
)  # fmt: skip
def test_scale_and_offset_of_features_leave_predictions_as_in_float64(spec, scale, offset, shots):
    """With fewer features than support images at 5 shots, too: then R2D2's products would be singular."""
    torch.manual_seed(2)
    split = open_dataset("glyphs")["test"]
    centres = torch.randn(len(split.classes), 16)
    plain = centres[torch.from_numpy(split.labels)] + torch.randn(len(split.images), 16)
    tasks = Tasks(EpisodeSampler(split, Protocol(5, shots, 15), 0), 40)
    (right,) = solve.solve_episodes(heads.build(spec), plain * scale + offset, [tasks])
    for number in range(40):
        z = (plain * scale + offset).double()[torch.from_numpy(tasks.sampler.draw(number, 1)[0])]
        support, query = z[:, :shots].flatten(0, 1), z[:, shots:].flatten(0, 1)
        targets = torch.eye(5).double().repeat_interleave(shots, 0)
        if spec == "proto":
            logits = -torch.cdist(query, z[:, :shots].mean(1))
        else:
            if "variant" in spec:  # an intercept; dividing X and Y by sqrt(n) multiplies lambda by n
                support, query = (torch.nn.functional.pad(part, (0, 1), value=1.0) for part in (support, query))
            images, features = support.shape
            lam = 50 * (images if "variant" in spec else 1)
            system = support.T @ support + lam * torch.eye(features, dtype=torch.float64)
            logits = query @ torch.linalg.solve(system, support.T @ targets)
        expected = (logits.argmax(1).view(5, 15) == torch.arange(5)[:, None]).sum(1)
        assert np.abs(right[number] - expected.numpy()).sum() <= 1


def test_logits_that_are_not_finite_are_no_accuracy():
    split = open_dataset("glyphs")["test"]
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 1, 15), 0), 3)
    with pytest.raises(UserError, match="5-way 1-shot episodes: the head's logits are not finite"):
        solve.solve_episodes(heads.build("r2d2"), 1e20 * torch.randn(len(split.images), 16), [tasks])


def test_a_system_that_cannot_be_factorized_is_no_accuracy():
    """Finite numbers would be taken for results. Here all support images are alike, and lambda is lost in rounding."""
    head, labels = heads.build("r2d2:lam=1e-6"), torch.arange(5).repeat(2).expand(2, -1)
    support = torch.stack([torch.full((10, 16), 1500.0), torch.eye(10, 16)])
    logits = head(support, labels, support)
    assert logits[0].isnan().all() and logits[1].isfinite().all()  # the task that can be solved keeps its logits
    assert head.class_weights(support, labels)[0].isnan().all()
    split = open_dataset("glyphs")["test"]
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 1, 15), 0), 3)
    with pytest.raises(UserError, match="the head's logits are not finite"):
        solve.solve_episodes(head, torch.full((len(split.images), 16), 1e9), [tasks])


class Learns(Head):
    """Logistic regression by gradient descent inside `solve`; centred on the base mean."""

    trainable, needs_base = False, True

    def fit_base(self, features, labels):
        assert len(features) == len(labels)
        self.mean = features.mean(0)

    @torch.enable_grad()
    def solve(self, support, targets, query):
        support, query = support - self.mean, query - self.mean
        weights = torch.zeros(len(support), targets.shape[2], support.shape[2], requires_grad=True)
        for _ in range(10):
            loss = -(targets * (support @ weights.mT).log_softmax(2)).sum(2).mean(1).sum()
            weights = weights - 0.5 * torch.autograd.grad(loss, weights)[0]
        return query @ weights.mT


class CentredBase(Learns):
    """One that fails if its base features are not centred."""

    def fit_base(self, features, labels):
        assert features.mean(0).abs().max() < 1e-4
        super().fit_base(features, labels)


def test_a_head_may_take_gradients_inside_and_learn_from_base_classes():
    torch.manual_seed(3)
    split = open_dataset("glyphs")["test"]
    centres = torch.randn(len(split.classes), 16)
    embeddings = centres[torch.from_numpy(split.labels)] + 0.5 * torch.randn(len(split.images), 16)
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 5, 15), 0), 50)
    base = Base(torch.randn(30, 16) + 40, torch.arange(3).repeat(10))
    (right,) = solve.solve_episodes(Learns(), embeddings + 40, [tasks], base=base)
    assert accuracies(right, 15).mean() > 0.9
    with pytest.raises(UserError, match="head Learns needs features of the base classes"):
        solve.solve_episodes(Learns(), embeddings, [tasks])
    (again,) = solve.solve_episodes(CentredBase(), embeddings + 40, [tasks], transforms.build("center"), base)
    assert np.abs(again - right).sum() <= 2  # it was fitted on transformed base features, whose mean is 0
    with pytest.raises(UserError, match="head Learns needs the base images' labels"):
        solve.solve_episodes(Learns(), embeddings, [tasks], base=base._replace(labels=None))


@pytest.mark.parametrize("limit", [0, 2**40])  # by embeddings, and by products
def test_a_transform_is_fitted_on_base_and_applied_before_the_head(limit, monkeypatch):
    monkeypatch.setattr(solve, "_GRAM_BYTES", limit)
    split = open_dataset("glyphs")["test"]
    embeddings, features = torch.randn(len(split.images), 32) * torch.rand(32) + 1, torch.randn(60, 32) + 1
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 5, 15), 0), 200)
    head = heads.build("proto")
    transform, base = transforms.build("center+l2"), Base(features, None)
    (right,) = solve.solve_episodes(head, embeddings, [tasks], transform, base)
    by_hand = torch.nn.functional.normalize(embeddings - features.mean(0))
    (expected,) = solve.solve_episodes(head, by_hand, [tasks])
    (plain,) = solve.solve_episodes(head, embeddings, [tasks])
    assert np.abs(right - expected).sum() <= 1 and np.abs(right - plain).sum() > 100
    with pytest.raises(UserError, match="transform Center needs features of the base classes"):
        solve.solve_episodes(head, embeddings, [tasks], transform)


def test_long_embeddings_are_not_gathered(monkeypatch):
    """51,200 numbers an image (Conv-512F): by products, however few the episodes."""
    monkeypatch.setattr(solve, "_EPISODE_BYTES", 4 * 80 * 100)
    made = []
    monkeypatch.setattr(solve, "gram_matrix", lambda z, centred: made.append(z.shape[1]) or (z @ z.mT))
    split = open_dataset("glyphs")["test"]
    for features in (100, 101):
        tasks = Tasks(EpisodeSampler(split, Protocol(5, 1, 15), 0), 2)
        solve.solve_episodes(heads.build("proto"), torch.randn(len(split.images), features), [tasks])
    assert made == [101]


def test_a_users_head_is_given_embeddings(monkeypatch):
    class Nearest(Head):
        def solve(self, support, targets, query):
            return (query @ support.mT) @ targets

    monkeypatch.setattr(solve, "gram_matrix", None)
    split = open_dataset("glyphs")["test"]
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 1, 15), 0), 50)
    (right,) = solve.solve_episodes(Nearest(), torch.randn(len(split.images), 8), [tasks])
    assert 0.1 < accuracies(right, 15).mean() < 0.3


def test_the_gram_matrix_is_all_inner_products(monkeypatch):
    monkeypatch.setattr(solve, "_GRAM_SIDE", 16)
    z = torch.randn(50, 9)
    assert torch.allclose(solve.gram_matrix(z), z @ z.T, atol=1e-5)
    centred = z - z.mean(0)
    assert torch.allclose(solve.gram_matrix(z + 7, centred=True), centred @ centred.T, atol=1e-4)


def test_memory_does_not_grow_with_the_episodes():
    """200,000 episodes within a hundred megabytes more than 2,000: their outcomes and classes are 12 MB."""
    script = """
import sys, resource, torch
from fewshot import heads, transforms
from fewshot.data import open_dataset
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.evaluation.solve import solve_episodes
torch.set_num_threads(1)
split = open_dataset("glyphs")["test"]
embeddings = torch.randn(len(split.images), 16)
for episodes in (2_000, 200_000):
    tasks = Tasks(EpisodeSampler(split, Protocol(5, 1, 2), 0), episodes)
    solve_episodes(heads.build("proto").eval(), embeddings, [tasks])
    tasks.sampler.classes(episodes), tasks.digest
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    few, many = map(int, done.stdout.split())
    assert many - few < 100_000


def test_loaded_model_embeds_images_and_refuses_others(small_run):
    model = fewshot.load(small_run, device="cpu")
    images = open_dataset("glyphs")["test"].images[:150]
    embeddings = model.embed(np.array(images))
    assert embeddings.shape == (150, 64) and embeddings.dtype == torch.float32
    split = open_dataset("glyphs")["test"]
    whole = embed_split(model, split, CPU)
    assert torch.allclose(embeddings, whole[:150], atol=1e-5)
    assert not whole.requires_grad and not whole.is_inference()  # a head may take gradients of what it makes of them
    with pytest.raises(UserError, match=r"give uint8 images of shape \(N, 32, 32, 3\)"):
        model.embed(np.zeros((2, 84, 84, 3), np.uint8))


def test_an_embedding_that_is_not_finite_names_its_image(small_run):
    model = fewshot.load(small_run, device="cpu")
    split = open_dataset("glyphs")["test"]
    with torch.no_grad():
        model.backbone.blocks[3].norm.bias[0] = float("nan")
    with pytest.raises(UserError, match="embedding of image 0 of the test split"):
        embed_split(model, split, CPU)
