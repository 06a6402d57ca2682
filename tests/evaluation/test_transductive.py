"""Heads that see all queries of a task: they can gain from the queries, and cannot read classes off their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewshot
from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.episodes import DisjointSampler, EpisodeSampler, Protocol, Tasks
from fewshot.evaluation import solve
from fewshot.evaluation.solve import accuracies, query_order, solve_episodes
from fewshot.heads import Head
from fewshot.heads._base import prototypes, squared_distances
from fewshot.testing import check_head
from fewshot.testing.heads import SIZES, permuting_queries_permutes_logits

SPLIT = open_dataset("glyphs")["test"]


class SoftKMeans(Head):
    """One step of soft k-means from the prototypes (Ren et al., ICLR 2018): a query belongs to each class in part."""

    transductive = True

    def solve(self, support, targets, query):
        share = (-squared_distances(query, prototypes(support, targets))).softmax(2)  # (T, Q, W)
        return -squared_distances(query, prototypes(torch.cat([support, query], 1), torch.cat([targets, share], 1)))


class Cheat(Head):
    """Assumes that the queries come class by class, as many of each."""

    transductive = True

    def solve(self, support, targets, query):
        ways = targets.shape[2]
        guess = torch.eye(ways).repeat_interleave(query.shape[1] // ways, 0)
        return guess.expand(len(query), -1, -1)


class CheatUnmarked(Cheat):
    transductive = False


def clusters(spread=0.9, features=8):
    torch.manual_seed(0)
    centres = torch.randn(len(SPLIT.classes), features)
    return centres[torch.from_numpy(SPLIT.labels)] + spread * torch.randn(len(SPLIT.images), features)


def solved(head, embeddings, protocol=None, episodes=200):
    protocol = protocol or Protocol(5, 1, 15)
    tasks = Tasks(EpisodeSampler(SPLIT, protocol, 0), episodes)
    return solve_episodes(head.eval(), embeddings, [tasks])[0]


def test_the_queries_help():
    embeddings = clusters()
    inductive, joint = (solved(head, embeddings) for head in (heads.build("proto:variant=snell"), SoftKMeans()))
    assert accuracies(joint, 15).mean() > accuracies(inductive, 15).mean() + 0.02


def test_right_queries_are_counted_for_their_own_classes():
    """As one episode at a time in the natural order, which makes no difference to an honest head."""
    embeddings, protocol = clusters(), Protocol(4, 2, 3)
    right = solved(SoftKMeans(), embeddings, protocol, 40)
    assert len(np.unique(right)) > 2
    for number in range(40):
        z = embeddings[torch.from_numpy(EpisodeSampler(SPLIT, protocol, 0).draw(number, 1)[0])]
        support, query = z[:, :2].reshape(1, 8, -1), z[:, 2:].reshape(1, 12, -1)
        logits = SoftKMeans()(support, torch.arange(4).repeat_interleave(2)[None], query)
        assert (logits.argmax(2).view(4, 3) == torch.arange(4)[:, None]).sum(1).tolist() == right[number].tolist()


def test_the_order_of_queries_tells_nothing():
    with pytest.raises(UserError, match="head CheatUnmarked: the other queries"):
        solved(CheatUnmarked(), clusters())
    cheating = accuracies(solved(Cheat(), clusters(), episodes=2000), 15)
    assert abs(cheating.mean() - 0.2) < 4 * cheating.std() / 2000**0.5 and cheating.std() > 0
    with pytest.raises(AssertionError, match="the order of queries matters"):
        permuting_queries_permutes_logits(f"{__name__}.Cheat", SIZES[0])
    with pytest.raises(AssertionError):
        check_head(f"{__name__}.Cheat")
    check_head(f"{__name__}.SoftKMeans")


def test_the_order_is_a_function_of_seed_and_number_alone(monkeypatch):
    """However the tasks are cut into batches; and each task's is a permutation of its own."""
    orders = query_order(0, 0, 50, 75)
    assert (np.sort(orders, 1) == np.arange(75)).all() and len(np.unique(orders, axis=0)) == 50
    assert (np.concatenate([query_order(0, 0, 7, 75), query_order(0, 7, 43, 75)]) == orders).all()
    assert (query_order(1, 0, 50, 75) != orders).any(1).all()
    places = query_order(3, 0, 20_000, 5)
    assert np.abs(np.stack([(places == i).mean(0) for i in range(5)]) - 0.2).max() < 0.02
    whole = solved(Cheat(), clusters())
    monkeypatch.setattr(solve, "_BATCH_BYTES", 4 * 80 * 8 * 3)
    assert (solved(Cheat(), clusters()) == whole).all()


def test_disjoint_tasks_are_shuffled_too():
    sampler = DisjointSampler(SPLIT, Protocol(5, 1, 15), 0)
    (right,) = solve_episodes(Cheat(), clusters(), [Tasks(sampler, len(sampler))])
    assert accuracies(right, 15).max() < 0.6


def test_its_scores_are_marked():
    (joint,), (alone,) = (
        fewshot.benchmark(clusters(), "glyphs", head, shots=1, episodes=20) for head in (SoftKMeans(), "proto")
    )
    assert (joint.setting, alone.setting) == ("transductive", "inductive")
    assert "5-way 1-shot, transductive: " in str(joint) and "transductive" not in str(alone)
