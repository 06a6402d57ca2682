"""Intervals and tests of proportions: how many of n images a classifier gets right, and how two classifiers differ.

The images of a test set are taken as a sample of all images of these classes: other images would give another
proportion. (The proportion on the images themselves is known exactly.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import special

from fewshot.evaluation.intervals import LEVEL, NEW_IMAGES, Interval, Units

WILSON = "Wilson's score interval, 95%"
NEWCOMBE = "Newcombe's interval for paired proportions"
FEW = 25
"""Discordant pairs below which the test is exact: the usual bound for its normal approximation."""

_Z = float(special.ndtri((1 + LEVEL) / 2))  # 1.96


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95% interval of a proportion, `right` of `n`, n >= 1 (Wilson, JASA 1927, 22:209-212).

    The values p for which right/n is no further than z from p in standard errors of p itself:

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),  p = right / n

    It stays within 0..1 and is not empty if all or none are right. Brown, Cai and DasGupta (Statistical Science
    2001) recommend it over p +- z sqrt(p (1 - p) / n).
    """
    p, square = right / n, _Z**2 / n
    middle, half = p + square / 2, _Z * sqrt(p * (1 - p) / n + square / (4 * n))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return (low if right else 0.0), (high if right < n else 1.0)  # exactly, where rounding would miss them


@dataclass(frozen=True)
class Pairs:
    """How two classifiers did on the same n images: both right, one alone, neither."""

    both: int
    first: int
    second: int
    neither: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Pairs:
        """From which images each gets right, (n,) bool."""
        counts = (first & second, first & ~second, ~first & second, ~first & ~second)
        return cls(*(int(each.sum()) for each in counts))

    @property
    def n(self) -> int:
        return self.both + self.first + self.second + self.neither

    @property
    def discordant(self) -> int:
        """Images that exactly one of the two gets right: all that tells them apart."""
        return self.first + self.second


def mcnemar(pairs: Pairs) -> tuple[float, str]:
    """Two-sided p-value of the hypothesis that both get equally many images right, and how it was calculated."""
    (p_value,) = mcnemar_p_values(np.array([pairs.first]), np.array([pairs.second]))
    how = "exact binomial" if pairs.discordant < FEW else "chi-squared"
    return float(p_value), f"McNemar's test, {how}"


def mcnemar_p_values(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(m,) p-values of `mcnemar` from the numbers of images, (m,) integers, that only the first or only the second gets
    right.

    With fewer than FEW discordant pairs they are exact, by the binomial distribution of `first` among them, share 1/2:
    the sum of both tails. Else by (first - second)^2 / (first + second), chi-squared with one degree of freedom,
    without continuity correction (McNemar, Psychometrika 1947).
    """
    some = first + second
    few = some < FEW
    p_values = np.empty(len(some))
    p_values[few] = np.minimum(1.0, 2 * special.bdtr(np.minimum(first, second)[few], some[few], 0.5))
    p_values[~few] = special.chdtrc(1, (first - second)[~few] ** 2 / some[~few])
    return p_values


def newcombe(pairs: Pairs) -> tuple[float, float]:
    """The 95% interval of the difference of two paired proportions, first - second.

    Method 10 of Newcombe (Statistics in Medicine 1998, 17:2635-2650): the distances of each proportion from the ends
    of its Wilson interval are combined as standard errors are, with the correlation phi of the pairs. The covariance in
    phi is made smaller by n/2 if it is positive (but not less than 0):

        d - sqrt(dl1^2 - 2 phi dl1 du2 + du2^2)  ..  d + sqrt(du1^2 - 2 phi du1 dl2 + dl2^2)
    """
    a, b, c, d, n = pairs.both, pairs.first, pairs.second, pairs.neither, pairs.n
    one, two = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = wilson(a + b, n), wilson(a + c, n)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    covariance = float(a * d - b * c)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / sqrt(margins) if margins else 0.0
    below = _together(one - low1, high2 - two, phi)
    above = _together(high1 - one, two - low2, phi)
    return one - two - below, one - two + above


def paired_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """How much two classifiers, (n,) bool of the same images, differ on new images of these classes.

    The interval is Newcombe's, the p-value McNemar's. `units`: images, for the plan of how many more it would take.
    """
    pairs = Pairs.of(first, second)
    low, high = newcombe(pairs)
    p_value, test = mcnemar(pairs)
    values = first.astype(np.float64) - second
    units = Units(pairs.n, float(values.var(ddof=1)))
    estimate = (pairs.first - pairs.second) / pairs.n
    return Interval(estimate, low, high, LEVEL, NEW_IMAGES, f"{NEWCOMBE}, {test}", p_value, units)


def _together(a: float, b: float, correlation: float) -> float:
    return sqrt(max(0.0, a * a - 2 * correlation * a * b + b * b))
