"""Planned studies: against published sample sizes, scipy's noncentral t, and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fewshot.evaluation.intervals import Units, new_classes, new_images, this_test_set, training_anew
from fewshot.evaluation.power import MOST, Need, need, needed, power

ONE = Units(10, 1.0)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_sample_sizes_are_those_of_the_tables(effect, n):
    """A two-sided t-test of one mean at 5%, 80% power: Cohen's small, medium and large effect, as G*Power has them."""
    assert needed(effect, ONE) == n


@pytest.mark.parametrize("units", [ONE, Units(40, 4.0, rest=0.01), Units(40, 4.0, lost=20)], ids=str)
@pytest.mark.parametrize("n", [25, 80, 3000])
def test_power_is_that_of_the_noncentral_t(units, n):
    freedom, shift = n - units.lost, 0.4 / (units.variance / n + units.rest) ** 0.5
    critical = stats.t.ppf(0.975, freedom)
    wrong_way = stats.nct.cdf(-critical, freedom, shift) if shift < 5 else 0  # scipy's is nan far out
    expected = stats.nct.sf(critical, freedom, shift) + wrong_way
    assert power(0.4, units, n) == power(-0.4, units, n) == pytest.approx(expected, abs=1e-6)
    assert power(0.4, units, n, level=0.01) <= expected
    least = needed(0.4, units)
    assert power(0.4, units, least) >= 0.8 > power(0.4, units, least - 1)


def test_no_number_of_units_is_enough_where_the_rest_is_too_large():
    assert needed(0.1, Units(20, 1.0, rest=0.01)) is None
    assert needed(1e-6, ONE) is None and MOST == 10_000_000
    assert power(0.1, Units(3, 0.0), 3) == 1 and power(0.0, Units(3, 0.0), 3) == 0


def test_power_rises_with_the_difference_for_every_size():
    for n in (2, 3, 6, 30, 1000, MOST):
        found = [power(gain, ONE, n) for gain in np.geomspace(1e-5, 1e3, 60)]
        assert found == sorted(found) and found[-1] > 0.999 and found[0] >= 0.05 - 1e-9, n


def test_a_variance_from_few_units_leaves_a_wide_plan():
    few, many = need(0.5, Units(3, 1.0)), need(0.5, Units(300, 1.0))
    assert few.n == many.n == 34 and not few.enough and many.enough
    assert few.low < many.low < 34 < many.high < few.high
    # chi-square of 2 degrees: quantile q is -2 log(1 - q)
    assert few.high == needed(0.5, Units(3, 1 / -np.log(0.975)))
    assert few.low == needed(0.5, Units(3, 1 / -np.log(0.025)))
    assert need(0.5, Units(2, 1.0)).high > 30_000
    assert many.times(1.5) == Need(450, 51, *(int(np.ceil(1.5 * n)) for n in (many.low, many.high)))
    assert Need(5, None, 3, None).times(2) == Need(10, None, 6, None)
    assert Need(18, 20, 18, None).times(5 * 16 / 94, pack=16) == Need(16, 32, 16, None), "whole tasks of 16 a class"


def test_every_interval_says_what_its_error_is_made_of():
    random = np.random.default_rng(0)
    classes = random.random((4000, 12)).argsort(1)[:, :5]
    values = random.normal(0, 0.1, 12)[classes].mean(1) + random.normal(0, 0.1, 4000)
    intervals = [
        this_test_set(values), new_images(values[:20], classes[:20]), new_images(values, classes),
        new_classes(values, classes), training_anew(values[:4]),
    ]  # fmt: skip
    assert [interval.units.n for interval in intervals] == [4000, 20, 4000, 12, 4]
    assert [interval.units.lost for interval in intervals] == [1, 1, 12, 1, 1]
    for interval in intervals:
        units = interval.units
        error = (units.variance / units.n + units.rest) ** 0.5
        assert interval.half_width == pytest.approx(stats.t.ppf(0.975, units.n - units.lost) * error)
        assert (interval.units.rest > 0) == (interval.units.n == 12)


def test_a_planned_study_finds_its_difference():
    """Seeds, 4,000 times; scripts/coverage.py does it for all questions."""
    n, random = needed(1.2, ONE), np.random.default_rng(1)
    found = np.mean([training_anew(random.normal(1.2, 1, n)).p_value < 0.05 for _ in range(4000)])
    assert found == pytest.approx(power(1.2, ONE, n), abs=0.02)
