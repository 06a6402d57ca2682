"""One variance for a whole study: what three seeds of one regularizer cannot tell, those of all of them can.

A network's accuracy is modelled as the sum of what its regularizer adds, what its seed adds, and noise with the same
variance for all regularizers: a two-way analysis of variance without interaction (Fisher, The Design of Experiments,
1935). A regularizer whose seeds differ far more than the others' is set apart, and gets no interval here. With three
seeds, the test detects one that varies many times as much, not one that varies twice as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from fewshot.evaluation.comparison import corrected
from fewshot.evaluation.intervals import LEVEL, TRAINING_ANEW, Interval, Units

Scores = Mapping[str, Mapping[int, float]]
"""Accuracies in one test, fractions of 1: by regularizer, then by seed."""

APART = 0.01  # how often one would be set apart in a study without such a regularizer
_NOTHING = 1e-20  # a sum of squares that is rounding errors


@dataclass(frozen=True)
class Pooled:
    """The fitted sum. `apart`: the regularizers that it leaves out."""

    means: Mapping[str, float]
    """What each regularizer gives, without the seeds' effects: only differences mean something."""
    spread: np.ndarray
    """(R, R): the covariance of `means`, divided by the noise's variance."""
    variance: float
    """Of the noise: what one network has by itself."""
    freedom: int
    apart: tuple[str, ...] = ()

    def difference(self, better: str, worse: str) -> Interval | None:
        """`better` - `worse`, for training anew; the p-value is not corrected. None if one of them is apart."""
        if not {better, worse} <= self.means.keys():
            return None
        names = list(self.means)
        i, j = names.index(better), names.index(worse)
        estimate = self.means[better] - self.means[worse]
        error = (self.variance * (self.spread[i, i] + self.spread[j, j] - 2 * self.spread[i, j])) ** 0.5
        half = float(special.stdtrit(self.freedom, (1 + LEVEL) / 2)) * error
        p_value = float(2 * special.stdtr(self.freedom, -abs(estimate) / error)) if error else float(estimate == 0)
        method = "two-way analysis of variance"
        return Interval(estimate, estimate - half, estimate + half, LEVEL, TRAINING_ANEW, method, p_value)

    @property
    def units(self) -> Units:
        """What another seed of two regularizers is worth, if these two alone are compared."""
        return Units(n=2, variance=2 * self.variance)


def pool(scores: Scores) -> Pooled | None:
    """The fit of a study; None if its seeds cannot tell the noise from the rest."""
    found = _fit(scores)
    apart: list[str] = []
    while found and (odd := _odd(scores, found)):
        apart.append(odd)
        scores = {reg: by_seed for reg, by_seed in scores.items() if reg != odd}
        found = _fit(scores)
    return found and replace(found, apart=tuple(apart))


def against(found: Pooled | None, baseline: str) -> dict[str, Interval]:
    """Every other regularizer's difference to the baseline, p-values by Holm's method over them."""
    if found is None:
        return {}
    return corrected({reg: found.difference(reg, baseline) for reg in (*found.means, *found.apart) if reg != baseline})


def _fit(scores: Scores) -> Pooled | None:
    regs, seeds = list(scores), sorted({seed for by_seed in scores.values() for seed in by_seed})
    cells = [(i, seeds.index(seed), score) for i, reg in enumerate(regs) for seed, score in scores[reg].items()]
    design = np.zeros((len(cells), len(regs) + len(seeds) - 1))  # the first seed's effect is 0
    for row, (i, j, _) in enumerate(cells):
        design[row, i] = 1
        if j:
            design[row, len(regs) + j - 1] = 1
    freedom = len(cells) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    values = np.array([score for *_, score in cells])
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ values
    left = float(((values - design @ fitted) ** 2).sum())
    variance = left / freedom if left > _NOTHING else 0.0
    means = dict(zip(regs, map(float, fitted[: len(regs)]), strict=True))
    return Pooled(means, inverse[: len(regs), : len(regs)], variance, freedom)


def _odd(scores: Scores, whole: Pooled) -> str | None:
    """The regularizer whose seeds differ so much more than the others' that no common variance can be assumed.

    By an F-test of its variance about the others' seeds against theirs; of several tests, with Bonferroni's correction.
    """
    p_values = {}
    for reg in scores:
        rest = _fit({name: by_seed for name, by_seed in scores.items() if name != reg})
        if rest is None or whole.freedom == rest.freedom:
            continue
        added = whole.freedom - rest.freedom
        more = max(0.0, whole.variance * whole.freedom - rest.variance * rest.freedom) / added
        ratio = more / rest.variance if rest.variance else np.inf if more else 0.0
        p_values[reg] = float(special.fdtrc(added, rest.freedom, ratio)) if np.isfinite(ratio) else 0.0
    odd = min(p_values, key=lambda reg: p_values[reg], default=None)
    return odd if odd is not None and p_values[odd] < APART / len(p_values) else None
