"""Intervals against scipy, closed forms and simulated truths; Holm; ranks."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from scipy import stats

from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import new_classes, new_images, this_test_set, training_anew
from fewshot.evaluation.statistics import (
    apart_by_intervals,
    at_chance,
    distinguishable,
    established,
    holm,
    paired_difference,
    paired_p_values,
    ranks,
    summarise,
)

RANDOM = np.random.default_rng(0)
ACCURACIES = np.round(RANDOM.normal(0.5, 0.1, 10_000) * 75).astype(np.float32) / 75


def test_summary_against_scipy():
    accuracies = np.random.default_rng(0).normal(0.5, 0.1, 10_000).astype(np.float32)
    summary = summarise(accuracies)
    assert summary.episodes == 10_000
    assert summary.accuracy == pytest.approx(accuracies.astype(np.float64).mean(), abs=1e-12)
    assert summary.std == pytest.approx(stats.tstd(accuracies.astype(np.float64)), abs=1e-12)
    low, high = stats.norm.interval(0.95, summary.accuracy, stats.sem(accuracies.astype(np.float64)))
    assert summary.ci95 == pytest.approx((high - low) / 2, rel=1e-4)  # 1.96 is 1.95996 rounded
    field = this_test_set(accuracies, "field")
    assert field.half_width == pytest.approx(summary.ci95, rel=1e-12) and field.estimate == summary.accuracy


def test_float32_sums_do_not_drift():
    assert summarise(np.full(1_000_000, 0.1, np.float32)).accuracy == pytest.approx(np.float32(0.1), abs=1e-12)


@pytest.mark.parametrize("interval, count", [(this_test_set, 30), (training_anew, 3)])
def test_t_intervals_and_p_values_are_scipys(interval, count):
    gains = np.random.default_rng(1).normal(0.01, 0.02, count)
    ours, theirs = interval(gains), stats.ttest_1samp(gains, 0)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.estimate == pytest.approx(gains.mean()) and ours.level == 0.95


def test_the_bootstrap_is_scipys_but_for_chance():
    few = ACCURACIES[:400].astype(np.float64)
    ours = this_test_set(few, "bootstrap")
    theirs = stats.bootstrap((few,), np.mean, method="percentile", batch=500).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.25 * few.std() / 400**0.5)
    assert ours.p_value is None


def test_runs_that_never_differ_are_the_same_for_certain():
    nothing = this_test_set(np.zeros(10))
    assert (nothing.low, nothing.high, nothing.p_value) == (0, 0, 1)
    assert paired_difference(ACCURACIES, ACCURACIES).ci95 == 0
    with pytest.raises(UserError, match="not the same episodes: 10,000 and 9"):
        paired_difference(ACCURACIES, ACCURACIES[:9])


def test_new_images_removes_what_is_due_to_classes():
    random = np.random.default_rng(2)
    classes = np.concatenate([random.permutation(20).reshape(4, 5) for _ in range(37)])
    residual = random.normal(0, 0.05, 148)
    values = random.normal(0.5, 0.2, 20)[classes].mean(1) + residual
    design = np.zeros((148, 20))
    np.put_along_axis(design, classes, 1 / 5, 1)
    effects, (squares,), *_ = np.linalg.lstsq(design, values, rcond=None)
    half = stats.t.ppf(0.975, 128) * (squares / 128 / 148) ** 0.5  # balanced: the error is that of a mean
    ours = new_images(values, classes)
    assert (ours.estimate, ours.half_width) == pytest.approx((effects.mean(), half), rel=1e-9)
    assert ours.half_width < 0.7 * this_test_set(values).half_width


def test_new_images_of_few_tasks_is_the_plain_interval():
    classes = np.random.default_rng(3).permutation(94)[:90].reshape(18, 5)
    few = ACCURACIES[:18]
    ours, theirs = new_images(few, classes), stats.ttest_1samp(few.astype(np.float64), 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=1e-9)


def test_new_images_where_every_task_has_all_classes():
    classes = np.tile(np.arange(5), (40, 1))
    plain, ours = this_test_set(ACCURACIES[:40]), new_images(ACCURACIES[:40], classes)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), rel=1e-9)


def test_new_classes_is_the_jackknife_over_classes():
    """On all 220 episodes of 3 of 12 classes, of accuracies that are no sum of effects."""
    classes = np.array(list(itertools.combinations(range(12), 3)))
    values = np.random.default_rng(4).uniform(size=12)[classes].prod(1)
    without = np.array([values[(classes != c).all(1)].mean() for c in range(12)])
    pseudo = 12 * values.mean() - 11 * without
    design = (classes[:, :, None] == np.arange(12)).sum(1) / 3
    effects, (squares,), *_ = np.linalg.lstsq(design, values, rcond=None)
    assert effects == pytest.approx(pseudo, rel=1e-9)
    covariance = squares / (220 - 12) * np.linalg.inv(design.T @ design)
    finite = np.trace(covariance @ (np.eye(12) - 1 / 12)) / 11  # of a sample variance, by the trace formula
    error = ((pseudo.var(ddof=1) - finite) / 12 + values.var(ddof=1) / 220) ** 0.5
    ours = new_classes(values, classes + 100)  # any numbers will do for names
    assert ours.estimate == pytest.approx(values.mean())
    assert ours.half_width == pytest.approx(stats.t.ppf(0.975, 11) * error, rel=1e-9)


def test_new_classes_of_a_difference_that_no_class_makes_is_the_episodes_own():
    classes = np.array(list(itertools.combinations(range(12), 3)))
    noise = np.where(np.arange(220) % 2, 0.1, -0.1)  # the spread of effects is all noise: nothing between classes
    assert new_classes(noise, classes).half_width == pytest.approx(stats.t.ppf(0.975, 11) * 0.1 / 220**0.5, rel=0.2)


FEW = np.random.default_rng(5).permutation(20)[:10]
MANY = np.random.default_rng(5).permutation(1692)


@pytest.mark.parametrize(
    "classes, expected",
    [
        (np.tile(np.arange(5), (100, 1)), "every episode has all 5 classes"),
        (FEW.reshape(2, 5).repeat(20, 0), "40 episodes are too few for 10 classes: evaluate 100 or more"),
        (MANY.reshape(-1, 4), "423 episodes are too few for 1,692 classes: evaluate 16,920 or more"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_said(classes, expected):
    with pytest.raises(UserError, match=expected):
        new_classes(ACCURACIES[: len(classes)], classes)


def least(repeats: int, probability: float = 1e-5) -> float:
    """A share that 95% intervals fall below once in 100,000 such tests."""
    return stats.binom.ppf(probability, repeats, 0.95) / repeats


def test_coverage_where_classes_have_effects():
    """2,000 test sets of 12 classes: the interval for new classes holds their value, the field's does not."""
    random, repeats, hits = np.random.default_rng(6), 2000, np.zeros(2)
    every = np.array(list(itertools.combinations(range(12), 3)))
    for _ in range(repeats):
        classes = every[random.integers(0, len(every), 300)]
        values = random.normal(0, 0.1, 12)[classes].mean(1) + random.normal(0, 0.1, 300)
        for which, interval in enumerate((new_classes(values, classes), this_test_set(values, "field"))):
            hits[which] += interval.low <= 0 <= interval.high
    assert abs(hits[0] / repeats - 0.95) <= 0.95 - least(repeats)
    assert hits[1] / repeats < 0.6


def test_coverage_script(tmp_path, monkeypatch):
    """The simulation of results/coverage.md, 60 times instead of 5,000."""
    script = [sys.executable, ROOT / "scripts" / "coverage.py", "--repeats", "60", "--episodes", "500"]
    done = subprocess.run([*script, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "coverage.json").read_text())["rows"]
    assert len(rows) == 11
    for row in rows:
        if row["interval"] != "accuracies by class, t":
            assert row["coverage"][row["for"]] >= least(60), row
    field = rows[0]["coverage"]
    assert field["new images"] < 0.95 - 0.1 and field["new classes"] < field["new images"] - 0.1
    for row in json.loads((tmp_path / "coverage.json").read_text())["power"]["planned"]:
        assert row["found"] >= stats.binom.ppf(1e-5, 60, row["stated"] - 0.03) / 60, row
    monkeypatch.syspath_prepend(ROOT / "scripts")
    again = ["--repeats", "2", "--power", "--out", str(tmp_path)]
    assert run(importlib.import_module("coverage").main, again) == 0
    facts = json.loads((tmp_path / "coverage.json").read_text())
    assert facts["rows"] == rows and facts["power"]["repeats"] == 2
    assert run(importlib.import_module("coverage").main, [*again[:-1], str(tmp_path / "new")]) == USER_ERROR
    text = (tmp_path / "coverage.md").read_text()
    assert "## What it would take" in text
    assert f"**{100 * field['this test set']:.1f}**" in text


def test_holm_adjusts_as_the_paper_does():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def ranked(episodes):
    return ranks(episodes.mean(1), distinguishable(episodes))


def test_a_rank_counts_those_that_are_better():
    random = np.random.default_rng(7)
    tasks, noise = random.normal(0.5, 0.1, 2000), random.normal(0, 0.02, (5, 2000))
    noise -= noise.mean(1, keepdims=True)  # so that the gains below are exact
    gain = np.array([0.0, 0.0005, 0.003, 0.0033, -0.01])
    assert ranked(tasks + noise + gain[:, None]) == [3, 3, 1, 1, 5]
    assert ranked(np.stack([tasks, tasks, tasks + 1e-6])) == [2, 2, 1]  # always a little better is better


def test_a_rank_says_nothing_of_those_that_are_not_established_better():
    differ = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert ranks([0.6, 0.5, 0.4], differ) == [1, 2, 1], "the last scatters too much for anything to be known"
    assert ranks([0.4, 0.5, 0.6], np.zeros((3, 3), bool)) == [1, 1, 1]


@pytest.mark.parametrize("seeds", [(1, 2), (1, 3), (1, 10), (3, 10), (3, 3)])
def test_equal_configurations_are_told_apart_in_at_most_5_per_cent(seeds):
    """4,000 pairs of the same training. A single seed's own interval, of its episodes, is far too small for that."""
    random, repeats = np.random.default_rng(10), 4000
    paired = np.array([[False, True], [True, False]])  # thousands of episodes tell any two networks apart
    found = [established(paired, [random.normal(0, 1, n) for n in seeds])[0, 1] for _ in range(repeats)]
    assert np.mean(found) <= stats.binom.ppf(1 - 1e-5, repeats, 0.05) / repeats
    if 1 in seeds:  # and exactly so: Student's interval for one more training
        assert np.mean(found) >= stats.binom.ppf(1e-5, repeats, 0.05) / repeats


def test_intervals_of_one_seed_and_of_several():
    means, widths, trainings = [0.50, 0.40, 0.20, 0.22], [0.01, 0.03, 0.01, 0.01], [1, 9, 1, 1]
    apart = apart_by_intervals(means, widths, trainings)
    assert (apart == apart.T).all() and not apart.diagonal().any()
    assert apart[0].tolist() == [False, True, True, True], "0.10 is more than 0.03 * sqrt(10)"
    assert apart[1].tolist() == [True, False, True, True]
    assert apart[2, 3], "two single networks by their own: 0.02 is more than 0.01 * sqrt(2)"
    assert not apart_by_intervals([0.50, 0.41], [0.01, 0.03], [1, 9]).any()
    assert apart_by_intervals([0.50, 0.41], [0.01, 0.03], [9, 9])[0, 1]


def test_established_takes_the_paired_test_too():
    differ = np.array([[False, True], [True, False]])
    assert established(differ, [[0.5], [0.4999]]).tolist() == differ.tolist(), "two networks by the test alone"
    assert not established(~differ, [[0.9], [0.1, 0.1001]]).any()
    assert established(differ, [[0.9], [0.1, 0.1001]]).tolist() == differ.tolist()


def test_which_differ_is_scipys_paired_test_for_every_pair():
    random = np.random.default_rng(9)
    tasks = random.normal(0.5, 0.1, 500)
    near = tasks + random.normal(0, 1e-6, (3, 500)) + np.array([[0], [0], [1e-6]])  # whose products lose the digits
    runs = np.concatenate([tasks + random.normal(0, 0.05, (5, 500)) + 0.004 * np.arange(5)[:, None], near, tasks[None]])
    pairs = list(itertools.combinations(range(9), 2))
    expected = holm([stats.ttest_rel(runs[a], runs[b]).pvalue for a, b in pairs]) < 0.05
    found = distinguishable(runs)
    assert [found[pair] for pair in pairs] == expected.tolist()
    assert (found == found.T).all() and not found.diagonal().any()
    assert 5 < expected.sum() < len(pairs) - 5 and found[6, 7], "some differ, some do not, by very little, too"


def test_ranks_take_the_number_of_comparisons_into_account():
    """p = 0.03 for two runs alone, but not among four."""
    random = np.random.default_rng(8)
    gain = random.normal(0, 1, 1000)
    gain = (gain - gain.mean()) / gain.std(ddof=1) + stats.t.isf(0.015, 999) / 1000**0.5
    alone = np.stack([np.zeros(1000), gain])
    others = np.stack([gain, np.zeros(1000)])
    assert ranked(alone) == [2, 1]
    assert ranked(np.concatenate([alone, others])) == [1, 1, 1, 1]


def test_paired_p_values_are_scipys_also_where_runs_nearly_agree():
    draw = np.random.default_rng(0)
    tasks = draw.normal(0.5, 0.1, 30)
    apart = tasks + draw.normal(0, 0.05, (5, 30)) + 0.004 * np.arange(5)[:, None]
    near = tasks + draw.normal(0, 1e-6, (3, 30)) + np.array([[0], [0], [1e-6]])
    runs, (a, b) = np.concatenate([apart, near]), np.triu_indices(8, 1)
    expected = [stats.ttest_rel(runs[i], runs[j]).pvalue for i, j in zip(a, b, strict=True)]
    assert paired_p_values(runs, a, b) == pytest.approx(expected, rel=1e-6)


def test_a_run_is_at_chance_where_its_interval_reaches_it():
    assert at_chance(0.21, 0.02, 5) and not at_chance(0.23, 0.02, 5)


def test_one_run_strays_as_far_as_the_spread_of_many_says():
    """By sqrt(n + 1) times the half-width of n runs: 0.03 * sqrt(10) is 0.0949."""
    assert apart_by_intervals([0.5, 0.404], [0.01, 0.03], [1, 9])[0, 1]
    assert not apart_by_intervals([0.5, 0.406], [0.01, 0.03], [1, 9])[0, 1]


def test_effects_of_classes_are_removed_from_two_tasks_a_class_on():
    draw = np.random.default_rng(0)
    classes = np.concatenate([draw.permutation(10).reshape(2, 5) for _ in range(10)])  # 20 tasks of 10 classes
    accuracies = draw.random(20)
    assert new_images(accuracies, classes).units.lost == 10
    assert new_images(accuracies[:18], classes[:18]).units.lost == 1


def test_as_many_tasks_as_new_classes_need_are_enough():
    draw = np.random.default_rng(0)
    accuracies, classes = draw.random(100), draw.random((100, 10)).argsort(1)[:, :5]
    assert new_classes(accuracies, classes).units.n == 10
    with pytest.raises(UserError):
        new_classes(accuracies[:99], classes[:99])
