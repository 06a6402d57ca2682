"""mixup and CutMix: how the share of an image is distributed, and which square is put in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from fewshot.data.mixing import Mixing


@pytest.mark.parametrize("alpha", [0.2, 4.0])
def test_shares_are_of_the_beta_distribution_asked_for(alpha):
    batch, draw = torch.zeros(2, 3, 1, 1), np.random.default_rng(0)
    shares = [Mixing(alpha, 0.0)(batch, draw).share for _ in range(1000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-6


def test_with_both_each_batch_has_one_of_them_with_a_share_of_its_own():
    """mixup alone makes values that no image had. Beta(50, 50) is near 0.5, Beta(0.5, 0.5) mostly at the ends."""
    batch, draw = torch.arange(8.0).view(-1, 1, 1, 1).repeat(1, 3, 4, 4), np.random.default_rng(0)
    both = [Mixing(50.0, 0.5)(batch, draw) for _ in range(400)]
    blended = [mixed.share for mixed in both if not torch.equal(mixed.images, mixed.images.round())]
    assert 140 < len(blended) < 260
    assert all(abs(share - 0.5) < 0.45 for share in blended)


def test_cutmixs_square_has_the_area_that_was_drawn_and_the_share_is_what_is_left():
    """Yun et al., section 3.1: sides of S * sqrt(1 - lambda) around a uniform centre; what lies outside is cut off."""
    size, compared = 32, 0
    batch = torch.arange(16.0).view(-1, 1, 1, 1).repeat(1, 3, size, size)
    for seed in range(40):
        mixed, again = Mixing(0.0, 1.0)(batch, np.random.default_rng(seed)), np.random.default_rng(seed)
        again.integers(1)
        share, _, centre = again.beta(1.0, 1.0), again.permutation(16), again.integers(size, size=2)
        half = size * math.sqrt(1 - share) / 2
        if half < 1:
            continue
        changed = (mixed.images != batch).any(1).any(0)
        for axis, middle in enumerate(centre.tolist()):
            places = changed.any(1 - axis).nonzero()
            assert abs(places.min().item() - max(0, middle - half)) < 1
            assert abs(places.max().item() + 1 - min(size, middle + half)) < 1
        assert mixed.share == pytest.approx(1 - changed.float().mean().item(), abs=1e-6)
        compared += 1
    assert compared > 30
