"""Disjoint tasks: no image twice, classes used evenly, as many as there can be, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from fewshot.core.errors import UserError
from fewshot.data import Split
from fewshot.episodes import DisjointSampler, EpisodeSampler, Protocol


def split(counts: tuple[int, ...]) -> Split:
    return Split("test", np.empty((sum(counts), 1)), tuple(f"c{i:03}" for i in range(len(counts))), counts)


MINI_TEST = split((600,) * 20)


@pytest.mark.parametrize(
    "counts, protocol, tasks",
    [
        ((600,) * 20, Protocol(5, 1, 15), 148),  # 37 sets a class, and 20 * 37 / 5
        ((600,) * 20, Protocol(5, 5, 15), 120),
        ((24,) * 94, Protocol(5, 1, 15), 18),
        ((20, 35, 27, 41, 22, 60), Protocol(3, 1, 4), 13),  # 4 + 7 + 5 + 8 + 4 + 12 = 40 sets
    ],
)
def test_no_image_comes_twice_and_no_task_is_missing(counts, protocol, tasks):
    sampler = DisjointSampler(split(counts), protocol, 0)
    drawn = sampler.draw(0, len(sampler))
    assert drawn.shape == (tasks, protocol.ways, protocol.images_per_class)
    assert len(np.unique(drawn)) == drawn.size
    owners = sampler.split.labels[drawn]
    assert (owners == owners[:, :, :1]).all() and (owners[:, :, 0] == sampler.classes(tasks)).all()
    assert all(len(set(row)) == protocol.ways for row in sampler.classes(tasks).tolist())


def test_each_class_is_used_as_often_as_any():
    sampler = DisjointSampler(MINI_TEST, Protocol(5, 1, 15), 0)
    assert (np.bincount(sampler.classes(len(sampler)).ravel()) == 37).all()


def test_facts_decide_the_tasks_and_a_stretch_is_a_stretch():
    """Pinned: a change of this number is a change of the standard tasks."""
    sampler = DisjointSampler(MINI_TEST, Protocol(5, 1, 15), 0)
    assert sampler.digest(148) == "c3bad13096880ff613efd7825190f46c96e856c97c1fe51ff3a45f3c844e21a8"
    assert (sampler.draw(10, 500) == sampler.draw(0, 148)[10:]).all()
    assert (DisjointSampler(MINI_TEST, Protocol(5, 1, 15), 1).draw(0, 148) != sampler.draw(0, 148)).any()


def test_an_image_is_as_likely_support_as_query_and_any_pair_of_classes_meets():
    seeds = [DisjointSampler(split((8,) * 6), Protocol(3, 1, 3), seed) for seed in range(300)]
    support = np.concatenate([each.draw(0, 4)[:, :, 0].ravel() for each in seeds])
    counts = np.bincount(support, minlength=48)  # of 2 sets of 4: each image is a support once in 4
    assert abs(counts - 75).max() < 5 * (300 * 0.25 * 0.75) ** 0.5
    firsts = np.concatenate([each.classes(1) for each in seeds])
    assert len({tuple(sorted(row)) for row in firsts.tolist()}) == 20


def test_too_few_is_said_as_by_the_other_sampler():
    for kind in (EpisodeSampler, DisjointSampler):
        with pytest.raises(UserError, match="5-way episodes need 5 classes"):
            kind(split((600,) * 4), Protocol(5, 1, 15), 0)
