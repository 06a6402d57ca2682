"""Episodes: a pure function of its arguments, uniform, without repetition, and quick."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest
from scipy import stats

from fewshot.core.errors import UserError
from fewshot.data import Split
from fewshot.episodes import EpisodeSampler, Protocol


def split(counts: tuple[int, ...], name: str = "train") -> Split:
    return Split(name, np.zeros((sum(counts), 1)), tuple(f"c{i:03}" for i in range(len(counts))), counts)


MINI_TRAIN = split((600,) * 64)


def test_any_stretch_of_episodes_equals_the_same_stretch_drawn_otherwise():
    sampler = EpisodeSampler(MINI_TRAIN, Protocol(5, 5, 15), seed=3)
    whole = sampler.draw(0, 50)
    pieces = np.concatenate([EpisodeSampler(MINI_TRAIN, Protocol(5, 5, 15), 3).draw(i, 7) for i in range(0, 49, 7)])
    assert (whole[:49] == pieces).all()


def test_the_first_episode_is_what_it_always_was():
    """Pinned: a change of this number is a change of the standard tasks."""
    sampler = EpisodeSampler(MINI_TRAIN, Protocol(5, 1, 15), seed=0)
    assert sampler.digest(1000) == "41b22140b059017cba83585f2baae2217d561b612c40f018c0b48570b3dd26e0"


def test_every_fact_matters_and_only_those():
    five = Protocol(5, 1, 5)

    def first(sampled, protocol=five, seed=0):
        return EpisodeSampler(sampled, protocol, seed).draw(0, 20)

    reference = first(MINI_TRAIN)
    renamed = Split("train", MINI_TRAIN.images, MINI_TRAIN.classes[:-1] + ("other",), MINI_TRAIN.counts)
    other_pixels = Split("train", MINI_TRAIN.images + 1, MINI_TRAIN.classes, MINI_TRAIN.counts)
    assert (first(other_pixels) == reference).all()
    for changed in (first(renamed), first(split((600,) * 64, "val")), first(MINI_TRAIN, seed=1)):
        assert (changed != reference).any()
    assert (first(MINI_TRAIN, Protocol(5, 2, 4))[:, :, :1] != reference[:, :, :1]).any()


def test_a_field_that_protocols_gain_later_moves_no_episode():
    grown = dataclasses.make_dataclass("Grown", [("alpha", float, 1.0)], bases=(Protocol,), frozen=True)
    samplers = [EpisodeSampler(MINI_TRAIN, protocol, 0) for protocol in (Protocol(5, 1, 15), grown(5, 1, 15))]
    assert samplers[0].digest(20) == samplers[1].digest(20)


def test_classes_and_images_do_not_repeat_and_belong_together():
    counts = (20, 35, 27, 41, 22, 20)
    sampled = split(counts)
    episodes = EpisodeSampler(sampled, Protocol(5, 5, 15), 0).draw(0, 300)
    assert all(len(np.unique(episode)) == episode.size for episode in episodes)
    owners = sampled.labels[episodes]
    assert (owners == owners[:, :, :1]).all()
    assert all(len(np.unique(episode[:, 0])) == 5 for episode in owners)


def test_every_image_and_class_is_as_likely_as_its_fellows():
    episodes = EpisodeSampler(MINI_TRAIN, Protocol(5, 5, 15), 0).draw(0, 10_000)
    classes = np.bincount((episodes[:, :, 0] // 600).ravel(), minlength=64)
    assert stats.chisquare(classes).pvalue > 1e-4
    images = np.bincount(episodes.ravel() % 600, minlength=600)
    assert stats.chisquare(images).pvalue > 1e-4
    support = np.bincount(episodes[:, :, :5].ravel() % 600, minlength=600)
    assert stats.chisquare(support).pvalue > 1e-4


def test_every_order_of_a_small_class_is_as_likely():
    episodes = EpisodeSampler(split((4, 4)), Protocol(2, 1, 3), 0).draw(0, 24_000)
    orders = [tuple(row) for row in (episodes[:, 0] % 4).tolist()]
    observed = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(observed) == 24_000
    assert stats.chisquare(observed).pvalue > 1e-4


def test_ten_thousand_episodes_take_at_most_three_seconds():
    sampler = EpisodeSampler(MINI_TRAIN, Protocol(5, 5, 15), 0)
    begin = time.process_time()
    assert sampler.draw(0, 10_000).shape == (10_000, 5, 20)
    assert time.process_time() - begin < 3.0


@pytest.mark.parametrize(
    "counts, protocol, expected",
    [
        ((600,) * 4, (5, 1, 15), "5-way episodes need 5 classes, and the train split has 4"),
        ((600, 600, 19, 600, 600), (5, 5, 15), "need 20 images a class, and c002 of the train split has 19"),
    ],
)
def test_too_few_says_the_numbers(counts, protocol, expected):
    with pytest.raises(UserError, match=expected):
        EpisodeSampler(split(counts), Protocol(*protocol), 0)


@pytest.mark.parametrize("protocol", [(0, 1, 15), (1, 1, 15), (5, 0, 15), (5, -1, 15), (5, 1, 0)])
def test_nonsense_protocols_are_refused(protocol):
    with pytest.raises(UserError, match="give at least"):
        Protocol(*protocol)


@pytest.mark.parametrize("number", [5.0, True, "5", None])
def test_what_is_no_integer_is_refused(number):
    """Some of these used to give other tasks than the integer, without a word."""
    for values in ((number, 1, 15), (5, number, 15), (5, 1, number)):
        with pytest.raises(UserError, match="(ways|shots|queries)=.*: give an integer"):
            Protocol(*values)
    with pytest.raises(UserError, match="seed=.*: give an integer"):
        EpisodeSampler(MINI_TRAIN, Protocol(), number)


def test_numpys_integers_are_integers():
    sampler = EpisodeSampler(MINI_TRAIN, Protocol(*np.array([5, 1, 15])), np.int64(3))
    assert sampler.digest(20) == EpisodeSampler(MINI_TRAIN, Protocol(5, 1, 15), 3).digest(20)
    assert EpisodeSampler(MINI_TRAIN, Protocol(), -3).digest(20) != sampler.digest(20)
    assert sampler.classes(0).shape == (0, 5) and sampler.classes(2).dtype == np.int64
