"""Intervals and tests of proportions against SciPy, published examples, sums by hand, and their own promise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fewshot.evaluation.image_comparison import distinguishable
from fewshot.evaluation.proportions import (
    FEW,
    Pairs,
    mcnemar,
    mcnemar_p_values,
    newcombe,
    paired_difference,
    wilson,
)
from fewshot.evaluation.statistics import holm


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 48), (3, 48), (47, 48), (48, 48), (9_132, 10_000)])
def test_wilson_is_scipys(right, n):
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (12, 12), (20, 4), (24, 0)])
def test_few_discordant_pairs_are_tested_exactly(first, second):
    found, method = mcnemar(Pairs(500, first, second, 30))
    assert method == "McNemar's test, exact binomial" and first + second < FEW
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(13, 12), (60, 90), (312, 280), (9, 200)])
def test_many_are_tested_by_the_usual_statistic(first, second):
    found, method = mcnemar(Pairs(500, first, second, 30))
    assert method == "McNemar's test, chi-squared"
    assert found == pytest.approx(stats.chi2.sf((first - second) ** 2 / (first + second), df=1), rel=1e-9)


def test_many_pairs_at_once_have_the_p_values_of_each():
    """60 networks on the same images, from nearly alike to far apart: exact tests and the usual one side by side."""
    draw = np.random.default_rng(0)
    hardness = draw.random(400)
    networks = [hardness + draw.normal(0, 0.05, 400) < skill for skill in np.linspace(0.8, 1, 60)]
    pairs = [Pairs.of(one, other) for one, other in combinations(networks, 2)]
    found = mcnemar_p_values(np.array([each.first for each in pairs]), np.array([each.second for each in pairs]))
    assert found.tolist() == [mcnemar(each)[0] for each in pairs]
    few = np.array([each.discordant < FEW for each in pairs])
    assert 0.1 < few.mean() < 0.9
    expected = [stats.binomtest(its.first, its.discordant).pvalue for its in pairs if 0 < its.discordant < FEW]
    assert found[few & [each.discordant > 0 for each in pairs]] == pytest.approx(expected, rel=1e-9)
    apart = distinguishable([[each] for each in networks])
    assert (apart[np.triu_indices(60, 1)] == (holm(found) < 0.05)).all() and apart.any() and not apart.all()


def test_published_examples():
    """Fagerland, Lydersen & Laake, Statistics in Medicine 2014, the airway data: interval and exact test.

    Altman et al., Statistics with Confidence, 2000, table 6.2: interval.
    """
    airways = Pairs(1, 1, 7, 12)
    assert newcombe(airways) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert mcnemar(airways)[0] == pytest.approx(0.0703, abs=5e-5)
    assert newcombe(Pairs(14, 5, 0, 22)) == pytest.approx((0.011, 0.226), abs=5e-4)


def test_ends_of_the_range():
    assert newcombe(Pairs(20, 0, 0, 0)) == pytest.approx((-0.161, 0.161), abs=1e-3)  # both all right: phi is 0
    low, high = newcombe(Pairs(0, 20, 0, 0))
    assert low == pytest.approx(1 - 0.161 * 2**0.5, abs=1e-3) and high == 1
    assert newcombe(Pairs(30, 9, 4, 7)) == pytest.approx(tuple(-end for end in newcombe(Pairs(30, 4, 9, 7))[::-1]))


def test_the_interval_holds_its_value_and_the_test_its_level():
    """3,000 test sets of 200 images: 95% of intervals hold it, and without a difference 5% of tests reject."""
    draw = np.random.default_rng(0)
    shares = np.array([0.80, 0.08, 0.04, 0.08])
    held = [low <= 0.04 <= high for low, high in (newcombe(Pairs(*row)) for row in draw.multinomial(200, shares, 3000))]
    assert 0.935 < np.mean(held) < 0.97
    same = np.array([0.70, 0.10, 0.10, 0.10])  # 40 discordant pairs, more or less: the usual statistic
    claimed = [mcnemar(Pairs(*row))[0] < 0.05 for row in draw.multinomial(200, same, 3000)]
    assert 0.03 < np.mean(claimed) < 0.065


def test_a_difference_is_counted_from_the_images():
    draw = np.random.default_rng(1)
    a, b = draw.random((2, 400)) < [[0.9], [0.85]]
    found, pairs = paired_difference(a, b), Pairs.of(a, b)
    assert (pairs.n, pairs.first - pairs.second) == (400, a.sum() - b.sum())
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == newcombe(pairs) and found.p_value == mcnemar(pairs)[0]
    assert found.units.n == 400 and found.units.variance == pytest.approx(np.var(1.0 * a - b, ddof=1))


def test_networks_that_are_right_on_different_images_have_a_wider_interval():
    """A negative covariance counts in full. By the formula, from SciPy's Wilson intervals."""
    one, two = (stats.binomtest(right, 50).proportion_ci(0.95, method="wilson") for right in (48, 38))
    phi = (36 * 0 - 12 * 2) / (48 * 2 * 38 * 12) ** 0.5
    down, up = (0.96 - one.low, two.high - 0.76), (one.high - 0.96, 0.76 - two.low)
    below, above = ((a * a - 2 * phi * a * b + b * b) ** 0.5 for a, b in (down, up))
    assert newcombe(Pairs(36, 12, 2, 0)) == pytest.approx((0.2 - below, 0.2 + above), abs=1e-9)
    assert below > np.hypot(*down) and above > np.hypot(*up)


def test_none_right_reaches_down_to_0_and_all_right_up_to_1_exactly():
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 2001))
