"""fewshot.evaluate_learner: learners that adapt to each task, on the same tasks; mistakes are one line."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fewshot
from fewshot.core.errors import UserError


def embed(images):
    return F.adaptive_avg_pool2d(images, 8).flatten(1)


def distances(support, labels, query):
    """Prototypical networks, once more."""
    support, query = embed(support), embed(query)
    prototypes = torch.stack([support[labels == way].mean(0) for way in range(int(labels.max()) + 1)])
    return -torch.cdist(query, prototypes)


def classes(support, labels, query):
    return distances(support, labels, query).argmax(1).numpy()


class Embed(torch.nn.Module):
    def forward(self, x):
        return embed(x)


@pytest.mark.parametrize("learner", [distances, classes])
def test_it_solves_the_tasks_of_benchmark(learner):
    scores = fewshot.evaluate_learner(learner, "glyphs", episodes=60)
    expected = fewshot.benchmark(Embed(), "glyphs", head="proto", episodes=60)
    for score, wanted in zip(scores, expected, strict=True):
        assert score.episodes_digest == wanted.episodes_digest and score.task_list == wanted.task_list
        assert np.abs(score.accuracies - wanted.accuracies).max() <= 1 / 75 + 1e-9
        assert score.accuracy == pytest.approx(wanted.accuracy, abs=1e-3)


def test_images_are_in_0_to_1_where_it_wants_them_so_and_queries_in_random_order():
    seen = []

    def guess(support, labels, query):
        seen.append((support, labels.clone(), query))
        support.fill_(0), labels.fill_(0)  # its own to change
        return torch.arange(5).repeat_interleave(15)  # right if queries came class by class

    (score,) = fewshot.evaluate_learner(
        guess, "glyphs", 1, episodes=30, preprocess=lambda images: images, setting="transductive"
    )
    support, labels, query = seen[0]
    assert support.shape == (5, 3, 32, 32) and query.shape == (75, 3, 32, 32) and labels.tolist() == [0, 1, 2, 3, 4]
    assert 0 <= query.min() and query.max() <= 1 and seen[1][0].dtype == torch.float32
    assert 0.15 < score.accuracy < 0.25 and score.setting == "transductive" and "transductive" in str(score)


def test_a_learners_random_numbers_are_the_tasks_own_and_the_callers_stay():
    def guess(support, labels, query):
        return torch.rand(len(query), 5)

    torch.manual_seed(3)
    state = torch.get_rng_state()
    options = {"dataset": "glyphs", "shots": 1, "setting": "transductive"}
    (short,), (long,) = (fewshot.evaluate_learner(guess, **options, episodes=n) for n in (10, 20))
    assert (long.accuracies[:10] == short.accuracies).all() and short.std > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_who_looks_at_all_queries_at_once_must_say_so():
    def centred(support, labels, query):
        return distances(support - support.mean(0), labels, query - query.mean(0))

    with pytest.raises(UserError, match="where other queries are left out: give setting='transductive'"):
        fewshot.evaluate_learner(centred, "glyphs", 1, episodes=10)
    (score,) = fewshot.evaluate_learner(centred, "glyphs", 1, episodes=10, setting="transductive")
    assert score.setting == "transductive"


@pytest.mark.parametrize(
    "answer, expected",
    [
        (lambda n: torch.zeros(n - 1, 5), "5-way 1-shot task 0: give logits (75, 5) or classes (75,), not of shape"),
        (lambda n: torch.full((n, 5), torch.nan), "task 0: the learner's logits are not finite"),
        (lambda n: torch.full((n,), 5), "classes must be integers from 0 to 4"),
        (lambda n: torch.zeros(n), "classes must be integers from 0 to 4"),
        (lambda n: None, "the learner returned a NoneType, not logits or classes"),
    ],
)
def test_what_is_no_answer_is_one_line(answer, expected):
    with pytest.raises(UserError) as refused:
        fewshot.evaluate_learner(lambda support, labels, query: answer(len(query)), "glyphs", 1, episodes=10)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"setting": "both"}, "give inductive or transductive"),
        ({"origin": fewshot.Origin("x")}, "give out, too"),
        ({"episodes": 1}, "at least 2"),
        ({"dataset": "mini-imagenet", "data_root": "nowhere"}, "not prepared"),
    ],
)
def test_wrong_options_are_one_line(options, expected):
    with pytest.raises(UserError, match=expected):
        fewshot.evaluate_learner(distances, **{"dataset": "glyphs", "shots": 1} | options)


def test_images_are_normalised_unless_told_otherwise():
    """Less the training split's mean, over its standard deviation."""
    glyphs, seen = fewshot.open_dataset("glyphs"), {}

    def watched(name):
        def learner(support, labels, query):
            seen.setdefault(name, support.clone().numpy())
            return distances(support, labels, query)

        return learner

    fewshot.evaluate_learner(watched("plain"), glyphs, 1, episodes=2, preprocess=lambda images: images)
    fewshot.evaluate_learner(watched("own"), glyphs, 1, episodes=2)
    mean, std = (np.array(each)[:, None, None] for each in (glyphs.mean, glyphs.std))
    assert mean.min() > 0.01 and std.max() < 0.9
    assert np.abs(seen["own"] - (seen["plain"] - mean) / std).max() < 1e-4


def test_a_learner_may_overwrite_what_it_is_given():
    def spoils(support, labels, query):
        answer = distances(support, labels, query)
        for given in (support, labels, query):
            given.zero_()
        return answer

    (found,), (expected,) = (fewshot.evaluate_learner(each, "glyphs", 1, episodes=10) for each in (spoils, distances))
    assert (found.accuracies == expected.accuracies).all()


def test_each_task_has_random_numbers_and_an_order_of_its_own():
    drawn = []

    def guess(support, labels, query):
        drawn.append(torch.rand(1).item())
        return torch.arange(5).repeat_interleave(15)

    (score,) = fewshot.evaluate_learner(guess, "glyphs", 1, episodes=30, setting="transductive")
    assert len(set(drawn)) == 30
    assert len(set(score.accuracies)) > 3  # always in one order, every task would have the same accuracy


def test_other_pixels_are_warned_of():
    dataset = dataclasses.replace(fewshot.open_dataset("glyphs"), fingerprint="f" * 64, former_fingerprint="")
    with pytest.warns(UserWarning, match="pixels of this glyphs are not the reference copy's"):
        fewshot.evaluate_learner(distances, dataset, 1, episodes=2)


@pytest.mark.parametrize("kind", [torch.bool, torch.complex64])
def test_what_has_no_largest_is_no_logit(kind):
    with pytest.raises(UserError, match=f"task 0: the learner's logits must be real numbers, not {kind}"):
        fewshot.evaluate_learner(lambda *task: distances(*task).to(kind), "glyphs", 1, episodes=2)


def test_a_module_gets_its_images_where_its_weights_are():
    """Also if there is a GPU, on which a function would get them. `meta` stands for another device."""

    class Counts(torch.nn.Module):
        def __init__(self, device):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, device=device))

        def forward(self, support, labels, query):
            assert support.device == self.weight.device
            return distances(support, labels, query)

    fewshot.evaluate_learner(Counts("cpu"), "glyphs", 1, episodes=2)
    with pytest.raises(UserError, match="meta"):
        fewshot.evaluate_learner(Counts("meta"), "glyphs", 1, episodes=2)
