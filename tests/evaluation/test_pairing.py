"""How configurations are compared: which seeds are paired, what old records allow, and Holm's correction over pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fewshot.evaluation import comparison, image_comparison
from fewshot.evaluation.comparison import Scores, adjust
from fewshot.evaluation.image_comparison import Right
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.records import Outcomes, Record
from fewshot.evaluation.statistics import holm

TASKS, IMAGES = 400, 400


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def scores(draw: np.random.Generator, means: dict[int, float], old: bool = False) -> Scores:
    """Of networks with these mean accuracies, by seed, on the same tasks. `old`: without tasks that share no image."""
    classes = np.random.default_rng(1).random((TASKS, 12)).argsort(1)[:, :5]
    tasks = {seed: Outcomes(mean + draw.normal(0, 0.05, TASKS), classes) for seed, mean in means.items()}
    return Scores.of({seed: Record(each, None if old else each) for seed, each in tasks.items()})


def test_seeds_are_paired_by_their_number(draw):
    """Seeds 0 to 2 against 1 to 3: two are shared, at different places in the two configurations."""
    ours, theirs = scores(draw, {0: 0.2, 1: 0.5, 2: 0.8}), scores(draw, {1: 0.4, 2: 0.6, 3: 0.9})
    assert (ours - theirs).seeds == {seed: pytest.approx(ours.seeds[seed] - theirs.seeds[seed]) for seed in (1, 2)}

    truth = np.zeros(IMAGES, int)
    right = [draw.random(IMAGES) < share for share in (0.2, 0.5, 0.8, 0.4, 0.6, 0.9)]
    first = Right(truth, dict(zip((0, 1, 2), right[:3], strict=True)))
    second = Right(truth, dict(zip((1, 2, 3), right[3:], strict=True)))
    found = image_comparison.difference(first, second)["training anew"].estimate
    assert found == pytest.approx(np.mean([right[1].mean() - right[3].mean(), right[2].mean() - right[4].mean()]))


def test_an_old_run_without_tasks_that_share_no_image_leaves_its_configuration_without(draw):
    tasks = Outcomes(draw.random(9), None)
    assert Scores.of({0: Record(tasks, tasks)}).disjoint is not None
    assert Scores.of({0: Record(tasks, tasks), 1: Record(tasks, None)}).disjoint is None


def test_p_values_of_all_pairs_are_scipys_corrected_by_holm(draw):
    each = [scores(draw, dict.fromkeys(range(3), 0.5 + 0.004 * number)) for number in range(4)]
    pairs = list(combinations(range(4), 2))
    found = comparison.differences(each)
    by_task, by_seed = [one.episodes.accuracies for one in each], [list(one.seeds.values()) for one in each]
    expected = {
        "this test set": [stats.ttest_rel(by_task[a], by_task[b]).pvalue for a, b in pairs],
        "training anew": [stats.ttest_rel(by_seed[a], by_seed[b]).pvalue for a, b in pairs],
    }
    for question, own in expected.items():
        assert [found[pair][question].unadjusted for pair in pairs] == pytest.approx(own, rel=1e-9)
        assert [found[pair][question].p_value for pair in pairs] == pytest.approx(holm(own), rel=1e-9)
        assert found[pairs[0]][question].p_value != found[pairs[0]][question].unadjusted


def test_one_network_against_several_is_a_paired_t_test_and_one_against_one_is_mcnemars(draw, monkeypatch):
    hardness = draw.random(IMAGES)
    networks = [hardness + draw.normal(0, 0.2, IMAGES) < skill for skill in (0.5, 0.52, 0.6, 0.63)]
    groups, corrected = [networks[:2], networks[2:3], networks[3:]], []
    monkeypatch.setattr(image_comparison, "holm", lambda given: corrected.append(np.array(given)) or holm(given))
    image_comparison.distinguishable(groups)
    mean, third, fourth = (np.mean(group, axis=0) for group in groups)
    only = [(networks[2] & ~networks[3]).sum(), (networks[3] & ~networks[2]).sum()]
    assert sum(only) >= 25  # else McNemar's test is exact
    mcnemar = stats.chi2.sf((only[0] - only[1]) ** 2 / sum(only), 1)
    expected = [stats.ttest_rel(mean, third).pvalue, stats.ttest_rel(mean, fourth).pvalue, mcnemar]
    assert holm(corrected[0]) == pytest.approx(holm(expected), rel=1e-6)


def test_a_question_that_some_pairs_cannot_answer_is_corrected_for_all_pairs():
    """As the words beside it say."""
    known = Interval(0.1, 0.02, 0.18, 0.95, "training anew", "Student's t", 0.02)
    found = {(0, 1): {"q": known}, (0, 2): {"q": "nothing is known"}, (1, 2): {"q": "nothing is known"}}
    adjusted = adjust(found, ["q"])[0, 1]["q"]
    assert (adjusted.p_value, adjusted.unadjusted) == (pytest.approx(0.06), 0.02)
    assert found[0, 2]["q"] == "nothing is known"
