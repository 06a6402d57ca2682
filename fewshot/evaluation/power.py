"""How many seeds, images or classes it would take to establish a difference, by the variances that were measured.

With n units, a two-sided t-test finds a difference d at the rate of a noncentral t (Student's test under the
alternative; Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, chapter 2):

    power(n) = P(|T| > t(1 - level / 2, f)),  T noncentral with f = n - lost and shift d / sqrt(variance / n + rest)

`Units` says what a unit is worth. Its variance is an estimate, too: `Need` has the n of both ends of its 95% interval.
`scripts/coverage.py` measures how often tests planned in this way find their difference (results/coverage.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from scipy import special

from fewshot.evaluation.intervals import LEVEL, Units

POWER = 0.8
MOST = 10_000_000
"""Nobody will have more units than that."""

_CERTAIN = 6  # standard errors, which normal noise outweighs once in 10^9


@dataclass(frozen=True)
class Need:
    """How many units a test needs to find a difference with the power asked for, when there are `have`.

    `low` .. `high`: the same for the smallest and the largest variance that the measured one leaves plausible (its 95%
    interval, for normal values). None: MOST are not enough.
    """

    have: int
    n: int | None
    low: int | None
    high: int | None

    def times(self, factor: float, pack: int = 1) -> Need:
        """The same in other units: each of these is `factor` of the others, which come only in packs of `pack`."""
        scaled = (None if n is None else pack * ceil(n * factor / pack - 1e-9) for n in (self.n, self.low, self.high))
        return Need(pack * ceil(self.have * factor / pack - 1e-9), *scaled)

    @property
    def enough(self) -> bool:
        """Whether the units that there are will do."""
        return self.n is not None and self.n <= self.have


def power(difference: float, units: Units, n: int, level: float = 1 - LEVEL) -> float:
    """Probability that a two-sided t-test at `level` with n units establishes a true difference, a fraction of 1."""
    freedom = n - units.lost
    critical = float(special.stdtrit(freedom, 1 - level / 2))
    error = (units.variance / n + units.rest) ** 0.5
    if error == 0:
        return float(difference != 0)
    shift = abs(difference) / error
    if shift > _CERTAIN * critical:
        return 1.0
    wrong_way = np.nan_to_num(special.nctdtr(freedom, shift, -critical))  # scipy gives nan if it is next to 0
    return float(1 - special.nctdtr(freedom, shift, critical) + wrong_way)


def needed(difference: float, units: Units, wanted: float = POWER, level: float = 1 - LEVEL) -> int | None:
    """The fewest units with which `power` is at least `wanted`. None if MOST of them are not enough."""
    fewest = high = units.lost + 1
    while power(difference, units, high, level) < wanted:
        if high >= MOST:
            return None
        fewest, high = high + 1, min(2 * high, MOST)
    while fewest < high:
        middle = (fewest + high) // 2
        if power(difference, units, middle, level) < wanted:
            fewest = middle + 1
        else:
            high = middle
    return high


def need(difference: float, units: Units, level: float = 1 - LEVEL) -> Need:
    """How many units it takes, and how uncertain that is."""
    freedom = units.n - units.lost
    ends = (special.chdtri(freedom, tail) / freedom for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    low, high = (needed(difference, replace(units, variance=units.variance / end), level=level) for end in ends)
    return Need(units.n, needed(difference, units, level=level), low, high)
