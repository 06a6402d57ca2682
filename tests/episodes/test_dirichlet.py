"""Unbalanced queries: Dirichlet's numbers, rounded as the paper's code does, in tasks that are a pure function."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewshot.core.errors import UserError
from fewshot.data import Split
from fewshot.episodes import DisjointSampler, EpisodeSampler, Protocol
from fewshot.episodes.dirichlet import largest_remainders, query_counts


def split(counts: tuple[int, ...], name: str = "test") -> Split:
    return Split(name, np.empty((sum(counts), 1)), tuple(f"c{i:03}" for i in range(len(counts))), counts)


MINI_TEST = split((600,) * 20)
PAPER = Protocol(5, 1, 15, query_alpha=2.0)


def numbers(protocol: Protocol, episodes: int, sampled: Split = MINI_TEST, seed: int = 0) -> np.ndarray:
    """(episodes, ways): how many queries of each class."""
    labels = EpisodeSampler(sampled, protocol, seed).episodes(0, episodes).labels
    return np.stack([(labels == c).sum(1) for c in range(protocol.ways)], axis=1)


@pytest.mark.parametrize("alpha, ways", [(2.0, 5), (0.5, 5), (1.0, 3), (20.0, 5)])
def test_numbers_have_the_means_and_covariances_of_dirichlets(alpha, ways):
    """mean 1/W, variance (W-1) / W^2 / (W alpha + 1), covariance -1 / W^2 / (W alpha + 1); rounding adds 1/12."""
    queries, episodes = 200, 20_000  # so many queries that rounding is small
    uniforms = np.random.default_rng(0).random((episodes, ways))
    counts = query_counts(uniforms, alpha, queries)
    assert (counts.sum(1) == queries).all() and counts.min() >= 0
    spread = queries**2 / ways**2 / (ways * alpha + 1)
    expected = spread * (ways * np.eye(ways) - 1) + (np.eye(ways) - 1 / ways) / 12
    assert np.abs(counts.mean(0) - queries / ways).max() < 5 * (spread * (ways - 1) / episodes) ** 0.5
    assert np.abs(np.cov(counts.T) / expected - 1).max() < 0.06


def test_tasks_have_these_numbers():
    """The sampler's own tasks, too: a class has no query in some, more than half of all in others."""
    counts = numbers(PAPER, 10_000)
    assert (counts.sum(1) == 75).all()
    assert np.abs(counts.mean(0) - 15).max() < 0.45
    assert np.abs(counts.var(0) / (75**2 * 0.2 * 0.8 / 11 + 0.8 / 12) - 1).max() < 0.05
    assert (counts == 0).any() and (counts > 37).any()
    beta = np.random.default_rng(1).beta(2, 8, 200_000) * 75  # of one class
    for most in (0, 4, 13, 27, 40):
        assert abs((counts <= most).mean() - (beta < most + 0.5).mean()) < 0.006
    assert np.abs(numbers(Protocol(5, 1, 15, query_alpha=1e6), 50) - 15).max() <= 1
    assert (numbers(Protocol(5, 1, 15, query_alpha=0.01), 50).max(1) >= 38).mean() > 0.9


def rounded_as_published(shares: np.ndarray, total: int) -> np.ndarray:
    """Rounded to the nearest; while the sum is wrong, the number whose remainder is nearest to a half is changed."""
    values = [share * total for share in shares]
    while (missing := total - sum(round(value) for value in values)) != 0:
        nearest = min(range(len(values)), key=lambda i: abs(math.modf(values[i])[0] - 0.5))
        values[nearest] = math.ceil(values[nearest]) if missing > 0 else math.floor(values[nearest])
    return np.array([round(value) for value in values])


@pytest.mark.parametrize("ways, total", [(5, 75), (2, 3), (20, 300), (5, 5)])
def test_rounding_is_that_of_the_published_code(ways, total):
    shares = np.random.default_rng(ways).dirichlet([2.0] * ways, 500)
    counts = largest_remainders(shares, total)
    assert (counts.sum(1) == total).all()
    assert (counts == [rounded_as_published(row, total) for row in shares]).all()
    assert (largest_remainders(np.full((1, ways), 1 / ways), ways * 3) == 3).all()
    assert largest_remainders(np.eye(ways), total).max(1).tolist() == [total] * ways


def test_shares_that_underflow_are_still_numbers():
    counts = query_counts(np.array([[0.0, 0.0], [1e-300, 0.5], [0.0, 1 - 2**-53]]), 0.01, 10)
    assert counts.tolist()[1:] == [[0, 10], [0, 10]] and counts[0].sum() == 10


def test_any_stretch_of_tasks_is_the_same_however_it_is_drawn(monkeypatch):
    whole = EpisodeSampler(MINI_TEST, PAPER, 3).draw(0, 60)
    pieces = [EpisodeSampler(MINI_TEST, PAPER, 3).draw(first, 7) for first in range(0, 56, 7)]
    assert (np.concatenate(pieces) == whole[:56]).all()
    monkeypatch.setattr("fewshot.episodes.sampler._CHUNK", 1)
    assert (EpisodeSampler(MINI_TEST, PAPER, 3).draw(0, 60) == whole).all()
    assert EpisodeSampler(MINI_TEST, PAPER, 3).draw(0, 0).shape == (0, 80)
    assert EpisodeSampler(MINI_TEST, PAPER, 3).episodes(0, 0).query.shape == (0, 75)


def test_the_first_task_is_what_it_always_was():
    """Pinned: a change of these numbers is a change of the standard tasks."""
    first = EpisodeSampler(MINI_TEST, PAPER, 0).digest(1000)
    assert first == "2722daf4f63eb62a2b441079a0e1a6bddfa3cb669d97311608467611dc5916b3"
    apart = DisjointSampler(MINI_TEST, PAPER, 0)
    assert apart.digest(len(apart)) == "61ef70b0a44ca55877311b2417056bc721411005b874fa8d9cfe154407442460"


def test_every_fact_matters_and_an_integer_is_the_same_number():
    def first(protocol=PAPER, sampled=MINI_TEST, seed=0):
        return EpisodeSampler(sampled, protocol, seed).digest(20)

    assert first(Protocol(5, 1, 15, query_alpha=2)) == first()
    others = {
        first(seed=1), first(sampled=split((600,) * 20, "val")), first(Protocol(5, 1, 15, 2.5)),
        first(Protocol(5, 1, 15)), first(Protocol(5, 1, 14, 2.0)), first(),
    }  # fmt: skip
    assert len(others) == 6


@pytest.mark.parametrize("kind", [EpisodeSampler, DisjointSampler])
def test_no_image_comes_twice_and_all_belong_to_their_classes(kind):
    sampled, protocol = split((40, 35, 27, 41, 22, 60)), Protocol(3, 2, 4, query_alpha=1.0)
    sampler = kind(sampled, protocol, 0)
    count = len(sampler) if kind is DisjointSampler else 300
    support, query, labels = sampler.episodes(0, count)
    assert support.shape == (count, 3, 2) and query.shape == labels.shape == (count, 12)
    classes = sampler.classes(count)
    assert (sampled.labels[support] == classes[..., None]).all()
    assert (sampled.labels[query] == np.take_along_axis(classes, labels, 1)).all()
    assert (np.diff(labels, axis=1) >= 0).all()  # class by class
    flat = sampler.draw(0, count)
    assert flat.shape == (count, 18)
    for row, own, asked in zip(flat, support, query, strict=True):
        assert len(set(row.tolist())) == 18 and set(row.tolist()) == {*own.ravel().tolist(), *asked.tolist()}
    if kind is DisjointSampler:
        assert len(np.unique(flat)) == flat.size and count >= 5


def test_disjoint_tasks_are_many_and_their_numbers_are_dirichlets_too():
    """Otherwise the interval for new images would be about other tasks."""
    samplers = [DisjointSampler(MINI_TEST, PAPER, seed) for seed in range(40)]
    assert min(map(len, samplers)) > 120  # 150 would take every image
    labels = np.concatenate([each.episodes(0, len(each)).labels for each in samplers])
    counts = np.stack([(labels == c).sum(1) for c in range(5)], axis=1)
    assert np.abs(counts.mean(0) - 15).max() < 0.6 and abs(counts.var() / 81.9 - 1) < 0.05


def test_balanced_tasks_are_split_like_any_others():
    for sampler in (EpisodeSampler(MINI_TEST, Protocol(5, 2, 3), 0), DisjointSampler(MINI_TEST, Protocol(5, 2, 3), 0)):
        drawn, (support, query, labels) = sampler.draw(3, 20), sampler.episodes(3, 20)
        assert (support == drawn[:, :, :2]).all() and (query == drawn[:, :, 2:].reshape(20, 15)).all()
        assert (labels == np.repeat(np.arange(5), 3)).all()


def test_a_class_that_could_not_give_all_queries_is_refused():
    """Asking it for fewer would give another distribution."""
    small = split((600, 600, 24, 600, 600))
    for kind in (EpisodeSampler, DisjointSampler):
        with pytest.raises(UserError, match="75 queries, which may all be of one class .* need 80 images a class, and"
                           " c002 of the test split has 24: ask for --queries 3 or fewer"):  # fmt: skip
            kind(small, Protocol(5, 5, 15, query_alpha=2.0), 0)
    EpisodeSampler(small, Protocol(5, 5, 3, query_alpha=2.0), 0)
    with pytest.raises(UserError, match="c000 of the test split has 8: ask for fewer shots or ways"):
        EpisodeSampler(split((8,) * 5), Protocol(5, 5, 1, query_alpha=2.0), 0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, 1e7])
def test_nonsense_is_refused(alpha):
    with pytest.raises(UserError, match=r"--query-alpha \S+: give a number from 0.01 to 1,000,000"):
        Protocol(5, 1, 15, query_alpha=alpha)


def test_names_say_it():
    assert str(PAPER) == "5-way 1-shot, Dirichlet 2" and str(Protocol(5, 1, 15)) == "5-way 1-shot"
    assert str(Protocol(5, 1, 15, query_alpha=0.5)) == "5-way 1-shot, Dirichlet 0.5"


def test_a_class_of_fewer_images_than_shots_is_told_no_negative_number():
    with pytest.raises(UserError, match="c000 of the test split has 3: ask for fewer shots or ways$"):
        EpisodeSampler(split((3,) * 5), Protocol(5, 5, 1, query_alpha=2.0), 0)


@pytest.mark.parametrize("alpha", ["2", True, [2.0], float("nan")])
def test_what_is_no_concentration_is_refused(alpha):
    with pytest.raises(UserError, match="--query-alpha .*: give a number from 0.01 to 1,000,000"):
        Protocol(5, 1, 15, alpha)
