"""Intervals against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fewshot.evaluation.statistics import summarise


def test_summary_against_scipy():
    accuracies = np.random.default_rng(0).normal(0.5, 0.1, 10_000).astype(np.float32)
    summary = summarise(accuracies)
    assert summary.episodes == 10_000
    assert summary.accuracy == pytest.approx(accuracies.astype(np.float64).mean(), abs=1e-12)
    assert summary.std == pytest.approx(stats.tstd(accuracies.astype(np.float64)), abs=1e-12)
    low, high = stats.norm.interval(0.95, summary.accuracy, stats.sem(accuracies.astype(np.float64)))
    assert summary.ci95 == pytest.approx((high - low) / 2, rel=1e-4)  # 1.96 is 1.95996 rounded


def test_float32_sums_do_not_drift():
    assert summarise(np.full(1_000_000, 0.1, np.float32)).accuracy == pytest.approx(np.float32(0.1), abs=1e-12)
