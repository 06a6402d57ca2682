"""DropBlock against torchvision, slicing, and its exact expectation."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import drop_block2d

from fewshot import regularizers
from fewshot.regularizers import Site
from fewshot.regularizers.dropblock import blocks_from_seeds, dropblock_mask, expected_drop, seed_rate


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 5])
def test_every_seed_becomes_its_whole_block(block_size):
    size = 10
    seeds = (torch.rand(4, 3, size - block_size + 1, size - block_size + 1) < 0.1).float()
    expected = torch.zeros(4, 3, size, size)
    for n, c, row, column in seeds.nonzero().tolist():
        expected[n, c, row : row + block_size, column : column + block_size] = 1
    assert torch.equal(blocks_from_seeds(seeds, block_size), expected)


@pytest.mark.parametrize("block_size", [1, 3, 5])
def test_equals_torchvision_given_its_seeds(block_size):
    """Odd blocks only, as torchvision. Its seed rate is applied to the same noise."""
    x = torch.randn(16, 8, 10, 10)
    torch.manual_seed(7)
    theirs = drop_block2d(x, p=0.2, block_size=block_size, eps=0.0)
    torch.manual_seed(7)
    gamma = seed_rate(0.2, block_size, 10, 10)
    seeds = torch.empty(16, 8, 11 - block_size, 11 - block_size).bernoulli_(gamma)
    keep = 1 - blocks_from_seeds(seeds, block_size)
    assert torch.equal(theirs == 0, keep.bool().logical_not())
    assert torch.allclose(theirs, x * keep * (keep.numel() / keep.sum()), rtol=1e-5)


@pytest.mark.parametrize("target, exact", [(0.1, 0.0935), (0.2, 0.175), (0.3, 0.247)])
def test_drops_what_it_says(target, exact):
    """The copied implementation drops .0835 of a wanted .1 here, timm's .19."""
    assert expected_drop(target, 5, 10, 10) == pytest.approx(exact, abs=6e-4)
    torch.manual_seed(0)
    x = torch.empty(512, 64, 10, 10)
    measured = (dropblock_mask(x, target, 5) == 0).float().mean().item()
    assert measured == pytest.approx(exact, rel=0.02)


def test_the_rate_ramps_with_progress():
    site = Site(64, 10, 10, 3, 4)
    method = regularizers.build("dropblock:drop_prob=0.2,ramp=0.5", site)
    measured = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        method.begin_step(progress)
        method(torch.randn(256, 64, 10, 10))
        measured.append(method.dropped.item())
    rates = (0.0, 0.1, 0.2, 0.2)
    assert measured == pytest.approx([expected_drop(rate, 5, 10, 10) for rate in rates], rel=0.05)


def test_default_blocks_follow_the_image_size_and_are_clipped():
    assert regularizers.build("dropblock", Site(64, 10, 10, 3, 4)).block_size == 5
    assert regularizers.build("dropblock", Site(64, 8, 8, 2, 4)).block_size == 2
    assert regularizers.build("dropblock", Site(64, 1, 1, 4, 4)).block_size == 1
