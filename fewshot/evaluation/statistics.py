"""What thousands of episode accuracies say, each figure with its formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot.errors import UserError

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
    """Half-width of the field's 95% interval, 1.96 * std / sqrt(n): of this test set's own value, as if
    every possible episode of it had been drawn; it says nothing of new images or new classes."""


def summarise(accuracies: np.ndarray) -> Summary:
    """Summary of (n,) episode accuracies, n >= 2."""
    assert accuracies.ndim == 1 and len(accuracies) >= 2
    values = accuracies.astype(np.float64)
    std = float(values.std(ddof=1))
    return Summary(len(values), float(values.mean()), std, 1.96 * std / len(values) ** 0.5)


def paired_difference(a: np.ndarray, b: np.ndarray) -> Summary:
    """Summary of a - b over the same (n,) episodes: what all of them share, easy or hard, cancels.

    Its interval is of the difference on this test set between these two trained networks; training
    anew may give another one.
    """
    if a.shape != b.shape:
        raise UserError(f"these are not the same episodes: {len(a):,} and {len(b):,}")
    return summarise(a.astype(np.float64) - b)
