"""Unbalanced queries: how many of a task's queries belong to each class (Veilleux et al., NeurIPS 2021).

Balanced tasks tell a transductive head that all classes have equally many queries, which no real task does. So the
shares of the classes are drawn from a symmetric Dirichlet distribution. The paper's concentration is 2; 1 makes all
shares equally likely, and the larger it is, the more balanced the tasks are.
"""

from __future__ import annotations

import numpy as np
from scipy import special


def query_counts(uniforms: np.ndarray, alpha: float, queries: int) -> np.ndarray:
    """(T, W) int64: queries of each of W classes in T tasks, `queries` in each task. A class may have none.

    Shares p ~ Dirichlet(alpha, ..., alpha), times `queries`, rounded. `uniforms` (T, W) in [0, 1) decide them: the
    inverse of the gamma distribution turns them into gamma variables, whose shares of their sum are p.
    """
    gammas = np.maximum(special.gammaincinv(alpha, uniforms), 1e-300)  # a sum of zeros has no shares
    return largest_remainders(gammas / gammas.sum(1, keepdims=True), queries)


def largest_remainders(shares: np.ndarray, total: int) -> np.ndarray:
    """(T, W) int64 that add up to `total`, from shares (T, W) that add up to 1.

    Rounds down; what is missing goes, one each, to the largest remainders. The paper's code amounts to the same: it
    rounds to the nearest and, while the sum is wrong, changes the number whose remainder is nearest to a half.
    """
    quotas = shares * total
    counts = quotas.astype(np.int64)
    places = (counts - quotas).argsort(axis=1, kind="stable").argsort(axis=1)  # 0 for the largest remainder
    return counts + (places < total - counts.sum(1, keepdims=True))
