"""Summaries and tests of thousands of episode accuracies, each with its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import this_test_set, training_anew

CI_METHOD = "1.96 * std / sqrt(n)"


@dataclass(frozen=True)
class Summary:
    """Fractions of 1 over n episodes."""

    episodes: int
    accuracy: float
    """Mean of the episodes' accuracies."""
    std: float
    """Sample standard deviation, divisor n - 1."""
    ci95: float
    """Half-width of the field's 95% interval, 1.96 * std / sqrt(n), for the mean over all possible episodes of this
    test set; it says nothing about new images or new classes."""


def summarise(accuracies: np.ndarray) -> Summary:
    """Summary of (n,) episode accuracies, n >= 2."""
    assert accuracies.ndim == 1 and len(accuracies) >= 2
    values = accuracies.astype(np.float64)
    std = float(values.std(ddof=1))
    return Summary(len(values), float(values.mean()), std, 1.96 * std / len(values) ** 0.5)


def at_chance(accuracy: float, ci95: float, ways: int) -> bool:
    """Whether the interval reaches down to what guessing gives, up to the rounding of float32 accuracies."""
    return accuracy - ci95 <= 1 / ways + 1e-6


def paired_difference(a: np.ndarray, b: np.ndarray) -> Summary:
    """Summary of a - b over the same (n,) episodes: what both find easy or hard cancels.

    Its interval is about the difference between these two trained networks on this test set; training again may give
    another one. Raises UserError if the two do not have the same number of episodes.
    """
    if a.shape != b.shape:
        raise UserError(f"these are not the same episodes: {len(a):,} and {len(b):,}")
    return summarise(a.astype(np.float64) - b)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values (m,): claiming those below 0.05 makes one or more false claims in at most 5% of such tables.

    In rising order, p(i) becomes max over j <= i of (m - j + 1) * p(j), at most 1 (Holm, Scandinavian Journal of
    Statistics 1979).
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p_values)[order]))
    return adjusted


def distinguishable(accuracies: np.ndarray, level: float = 0.05) -> np.ndarray:
    """(k, k) bool: which of k runs differ, from their accuracies (k, n) in the same n episodes.

    By the paired t-test (two-sided, Holm over all pairs) at `level`. It is about these networks on this test set.
    """
    values = np.asarray(accuracies, np.float64)
    pairs = np.triu_indices(len(values), 1)
    apart = np.zeros((len(values), len(values)), bool)
    apart[pairs] = holm(paired_p_values(values, *pairs)) < level
    return apart | apart.T


def paired_p_values(values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(m,) two-sided p-values of the t-tests of values[a] - values[b]: values (k, n), a and b (m,).

    From one matrix of products, so that thousands of pairs take no longer than a few: var(x - y) = var x + var y -
    2 cov(x, y). If the two hardly differ, that loses its digits, and the difference itself is taken.
    """
    n = values.shape[1]
    means = values.mean(1)
    centred = values - means[:, None]
    products = centred @ centred.T
    squares = products.diagonal()
    both = squares[a] + squares[b]
    rest = both - 2 * products[a, b]
    close = rest <= 1e-6 * both
    error = np.sqrt(np.where(close, 1.0, rest) / (n - 1) / n)
    p_values = 2 * special.stdtr(n - 1, -np.abs(means[a] - means[b]) / error)
    for pair in np.flatnonzero(close):
        p_values[pair] = this_test_set(values[a[pair]] - values[b[pair]]).p_value
    return p_values


def apart_by_intervals(
    means: Sequence[float] | np.ndarray, half_widths: Sequence[float], trainings: Sequence[int]
) -> np.ndarray:
    """(k, k) bool: which of k configurations differ by more than their 95% intervals, taken as independent, allow.

    means, half_widths: (k,) of each one's interval, in the same unit. trainings: (k,) how many seeds each has. The
    interval of n seeds, of half-width h = t(0.975, n - 1) * std / sqrt(n), is about what training again gives on
    average; that of one seed is about one network. So if only one of two has several seeds, these tell how far a single
    training strays: for that pair the other's half-width is h * sqrt(n). The pair's half-width is then h * sqrt(n + 1),
    Student's for one more training.
    """
    centres, widths, single = np.asarray(means), np.asarray(half_widths), np.asarray(trainings) == 1
    strays = widths * np.sqrt(trainings)
    own = np.where(single[:, None] & ~single, strays, widths[:, None])  # [i, j]: of i, against j
    return np.abs(centres[:, None] - centres) > np.hypot(own, own.T)


def established(apart: np.ndarray, accuracies: Sequence[Sequence[float]]) -> np.ndarray:
    """(k, k) bool: between which of k configurations a difference is established. Leaderboard and `compare` rank by it.

    apart: (k, k) bool, by a paired test, which is about these networks. accuracies: of each configuration, one for each
    of its seeds. If one of two has several, they must differ by `apart_by_intervals`, too.
    """
    anew = [training_anew(np.array(each)).half_width if len(each) > 1 else 0.0 for each in accuracies]
    return apart & apart_by_intervals([float(np.mean(each)) for each in accuracies], anew, list(map(len, accuracies)))


def ranks(means: Sequence[float] | np.ndarray, apart: np.ndarray) -> list[int]:
    """Ranks of k configurations: 1 + how many others are established to be better.

    means: (k,) accuracies. apart: (k, k) bool, which of them differ. A rank says that and no more: configurations that
    share one need not be equal, and one that is hard to tell from others because its seeds scatter may have a better
    rank than one that is more accurate.
    """
    better = np.asarray(means)[:, None] > np.asarray(means)  # [i, j]: i than j
    return (1 + (better & apart).sum(0)).tolist()
