"""Confidence intervals, each for its own estimand: the value that it is about.

An accuracy can be meant in four ways, from the narrowest to the widest:

    this test set     the average over every possible episode of these very images
    new images        what other images of the same classes would give
    new classes       what other classes of the same kind, with their images, would give
    training anew     what the same training would give with other seeds, on these very tasks

All functions take accuracies, or differences of two runs on the same tasks: what both find easy or hard then
cancels. `scripts/coverage.py` measures in a simulation how often each interval holds its own value
(results/coverage.md). How often it holds another value depends on that simulation, of 24 images a class and one query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from fewshot.core.errors import UserError

LEVEL = 0.95
THIS_TEST_SET = "these networks on this test set: the mean over all its episodes"
NEW_IMAGES = "these networks on new images of these classes"
NEW_CLASSES = "these networks on new classes of this kind"
TRAINING_ANEW = "the same training with other seeds, on these very tasks or images"

_RESAMPLES = 9_999
_EPISODES_PER_CLASS = 10  # with fewer, the classes' effects drown in the episodes' noise


@dataclass(frozen=True)
class Units:
    """How an estimate's error depends on how much was measured: error^2 = variance / n + rest, Student's t(n - lost).

    `n`: the tasks, classes or seeds that there were.
    """

    n: int
    variance: float
    rest: float = 0.0
    lost: int = 1


@dataclass(frozen=True)
class Interval:
    """`low` .. `high` holds the value named by `estimand` with probability `level`. Fractions of 1."""

    estimate: float
    low: float
    high: float
    level: float
    estimand: str
    method: str
    p_value: float | None
    """Two-sided, of the hypothesis that the value is zero: for differences. None if the method has none."""
    units: Units | None = None
    """What one more of them would change. None if the method has none."""
    unadjusted: float | None = None
    """The p-value before Holm's adjustment, if there was one."""

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def symmetric(self) -> bool:
        """Whether the estimate is its middle: not so in Newcombe's and Wilson's intervals."""
        return abs(self.low + self.high - 2 * self.estimate) < 1e-9


def this_test_set(values: np.ndarray, method: str = "t") -> Interval:
    """Interval of the mean over all episodes of this test set, from (n,) drawn ones.

    Given the images, episodes are drawn independently. So these intervals hold (Student, Biometrika 1908; Efron,
    Annals of Statistics 1979), and shrink to nothing as n grows:

        field       mean +- 1.96 * std / sqrt(n), with std of divisor n - 1
        t           mean +- t(n - 1) * std / sqrt(n)
        bootstrap   2.5 and 97.5 per cent points of the means of 9,999 resamples, drawn with replacement
    """
    values = _checked(values)
    if method == "bootstrap":
        distinct, counts = np.unique(values, return_counts=True)  # few: a resample is how often each of them occurs
        random, at_once = np.random.default_rng(0), -(-10_000_000 // len(distinct))
        drawn = [
            random.multinomial(len(values), counts / len(values), min(at_once, _RESAMPLES - start)) @ distinct
            for start in range(0, _RESAMPLES, at_once)
        ]
        means = np.concatenate(drawn) / len(values)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        name = f"percentile bootstrap, {_RESAMPLES:,} resamples"
        return Interval(float(values.mean()), float(low), float(high), LEVEL, THIS_TEST_SET, name, None)
    error = values.std(ddof=1) / len(values) ** 0.5
    if method == "field":
        mean, half = float(values.mean()), float(1.96 * error)
        return Interval(mean, mean - half, mean + half, LEVEL, THIS_TEST_SET, "1.96 * std / sqrt(n)", None)
    assert method == "t"
    return _student(values.mean(), error, _alike(values), THIS_TEST_SET, "Student's t over episodes")


def new_images(values: np.ndarray, classes: np.ndarray) -> Interval:
    """Interval for new images of these classes, from (n,) tasks that share no image, and their (n, ways) classes.

    The open interval of Lafargue et al., "Oops, I Sampled it Again: Reinterpreting Confidence Intervals in
    Few-Shot Learning" (TMLR 2024): tasks without a common image (`episodes.DisjointSampler`) are independent given
    their classes, so mean +- t(n - 1) * std / sqrt(n) holds. That is somewhat wide: the tasks use the classes evenly,
    so hard and easy classes spread the tasks but not their mean. With at least twice as many tasks as classes we remove
    that part. With effects b by least squares, value = mean of its classes' b + residual,

        estimate = mean(b),  error^2 = s^2 * sum((X'X)^-1) / C^2,  s^2 = residuals^2 / (n - C),  t(n - C)

    for C classes, and X (n, C), which holds 1 / ways where a class takes part.
    """
    values = _checked(values)
    if len(values) < 2 * len(np.unique(classes)):
        error = values.std(ddof=1) / len(values) ** 0.5
        return _student(values.mean(), error, _alike(values), NEW_IMAGES, "Student's t over disjoint tasks")
    fit = _ClassEffects(values, classes)
    error = (fit.noise * fit.inverse.sum()) ** 0.5 / len(fit.effects)
    method = "Student's t over disjoint tasks, classes' effects removed"
    units = Units(len(values), float(error**2 * len(values)), lost=len(values) - fit.freedom)
    return _student(fit.effects.mean(), error, units, NEW_IMAGES, method)


def new_classes(values: np.ndarray, classes: np.ndarray) -> Interval:
    """Interval for new classes of this kind, from (n,) episodes and the (n, ways) class numbers of each.

    The classes of the test set are taken as a sample of all classes of their kind. A class makes its own queries easy
    or hard, and also those of the classes that it meets. So its effect is the difference between whole episodes with it
    and without it: the spread of its own queries' accuracy alone misses the second part. The mean over episodes is
    a U-statistic of the classes (Hoeffding, 1948). Its variance comes from the delete-one-class jackknife
    (Arvesen, Annals of Mathematical Statistics 1969); if episodes are balanced, the jackknife's pseudo-values are the
    least squares effects b of value = mean of its classes' b + residual. For C classes:

        estimate = mean(values),  error^2 = max(0, var(b) - v) / C + var(values) / n,  t(C - 1)

    where v = s^2 * (trace((X'X)^-1) - sum((X'X)^-1) / C) / (C - 1) is the part of var(b) that comes from drawing only n
    episodes, s^2 the variance of residuals and X as in `new_images`. If an episode's value is not a sum of effects of
    its classes, the interval is somewhat wide: on average the jackknife's variance is not too small (Efron and Stein,
    Annals of Statistics 1981). Raises UserError if the effects cannot be estimated: too few classes or episodes.
    """
    values = _checked(values)
    count, ways = len(np.unique(classes)), classes.shape[1]
    if count <= ways:
        raise UserError(f"every episode has all {count} classes, so that no class can be compared with the others")
    if len(values) < (enough := _EPISODES_PER_CLASS * count):
        raise UserError(f"{len(values):,} episodes are too few for {count:,} classes: evaluate {enough:,} or more")
    fit = _ClassEffects(values, classes)
    finite = fit.noise * (np.trace(fit.inverse) - fit.inverse.sum() / count) / (count - 1)
    between = max(0.0, fit.effects.var(ddof=1) - finite)
    error = (between / count + values.var(ddof=1) / len(values)) ** 0.5
    units = Units(count, float(between), float(values.var(ddof=1) / len(values)))
    return _student(values.mean(), error, units, NEW_CLASSES, f"jackknife over {count} classes, Student's t")


def training_anew(values: np.ndarray) -> Interval:
    """Interval of what further training seeds would average, from (s,) seeds' values: mean +- t(s - 1) * std / sqrt(s).

    For two recipes: the differences of runs of the same seed. Seeds' values are taken to be normal. The tasks are the
    same for all seeds, so nothing is said about other tasks: what the draw of these tasks leaves open is common to all
    seeds, and is in each one's own interval but not in this one (Bouthillier et al., "Accounting for Variance in
    Machine Learning Benchmarks", MLSys 2021).
    """
    values = _checked(values)
    error = values.std(ddof=1) / len(values) ** 0.5
    return _student(values.mean(), error, _alike(values), TRAINING_ANEW, f"Student's t over {len(values)} seeds")


class _ClassEffects:
    """Least squares fit of value = mean of its classes' effects + residual."""

    def __init__(self, values: np.ndarray, classes: np.ndarray) -> None:
        names, place = np.unique(classes, return_inverse=True)
        place, count, ways = place.reshape(classes.shape), len(names), classes.shape[1]
        flat, sums = np.zeros(count * count), np.zeros(count)  # X'X and X'values, without X: it is large
        for i in range(ways):
            sums += np.bincount(place[:, i], values, count) / ways
            for j in range(ways):
                flat += np.bincount(place[:, i] * count + place[:, j], minlength=count * count) / ways**2
        moments = flat.reshape(count, count)
        self.inverse = np.linalg.pinv(moments, hermitian=True)  # singular if every task has all classes
        self.effects = self.inverse @ sums
        self.freedom = len(values) - np.linalg.matrix_rank(moments, hermitian=True)
        self.noise = float(np.sum((values - self.effects[place].mean(1)) ** 2) / self.freedom)


def _checked(values: np.ndarray) -> np.ndarray:
    assert values.ndim == 1 and len(values) >= 2
    return values.astype(np.float64)


def _alike(values: np.ndarray) -> Units:
    """Independent values from one distribution."""
    return Units(len(values), float(values.var(ddof=1)))


def _student(estimate: float, error: float, units: Units, estimand: str, method: str) -> Interval:
    estimate, error, freedom = float(estimate), float(error), units.n - units.lost
    half = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error
    if error > 0:
        p_value = float(2 * special.stdtr(freedom, -abs(estimate) / error))
    else:  # two runs that never differ, or always by the same amount
        p_value = float(estimate == 0)
    return Interval(estimate, estimate - half, estimate + half, LEVEL, estimand, method, p_value, units)
