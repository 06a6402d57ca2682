"""DropBlock against torchvision, slicing, and its exact expectation."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import drop_block2d

from fewshot import backbones, regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Site
from fewshot.regularizers.dropblock import (
    blocks_from_seeds,
    dropblock_mask,
    expected_drop,
    metaopt_blocks_from_seeds,
    seed_rate,
)


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
    """Odd blocks only, as in torchvision. Its seed rate is applied to the same noise."""
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
    """The copied implementation drops .0787 of these .0935, timm's .19."""
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


def paired(seeds, b):
    """MetaOptNet's expansion with its two lists written out; pairs that hit the same element count once."""
    n, c, rows, columns = seeds.shape
    blocks = torch.zeros(n, c, rows + b - 1, columns + b - 1)
    positions = seeds.nonzero().tolist()
    for i, j, row, column in positions:
        blocks[i, j, row + (b - 1) // 2, column + (b - 1) // 2] = 1  # the seeds, padded on either side
    offsets = [(row, column) for row in range(b) for column in range(b)]
    for (i, j, row, column), (down, right) in zip(positions * b**2, offsets * len(positions), strict=True):
        blocks[i, j, row + down, column + right] = 1
    return blocks


@pytest.mark.parametrize("batch, size, block_size", [(1, 10, 5), (60, 5, 5), (4, 7, 4), (6, 4, 2), (6, 2, 1)])
def test_metaopt_equals_its_lists_paired_item_by_item(batch, size, block_size):
    fits = size - block_size + 1
    periods = set()
    for count in range(2 * block_size**2 + 1):
        torch.manual_seed(count)
        seeds = torch.zeros(batch * 3 * fits**2)
        seeds[torch.randperm(len(seeds))[:count]] = 1
        seeds = seeds.view(batch, 3, fits, fits)
        assert torch.equal(metaopt_blocks_from_seeds(seeds, block_size), paired(seeds, block_size))
        periods.add(math.gcd(int(seeds.sum()), block_size**2))
    assert periods == {divisor for divisor in (1, 2, 4, 5, 8, 16, 25) if block_size**2 % divisor == 0}


@pytest.mark.parametrize("size, wanted, dropped", [(5, 0.1, 0.0840), (10, 0.0935, 0.0787)])
def test_metaopt_drops_less_and_fails_in_a_fifth_of_the_steps(size, wanted, dropped):
    """At a rate of .1 and block 5: .084 on the deepest maps of 84 px images, where whole blocks give .1."""
    assert expected_drop(0.1, 5, size, size) == pytest.approx(wanted, abs=6e-4)
    assert expected_drop(0.1, 5, size, size, "metaopt") == pytest.approx(dropped, abs=1e-4)
    torch.manual_seed(0)
    x = torch.empty(16, 16, size, size)
    fractions = torch.tensor([(dropblock_mask(x, 0.1, 5, "metaopt") == 0).float().mean() for _ in range(1000)])
    assert fractions.mean().item() == pytest.approx(dropped, rel=0.03)
    assert (fractions < wanted / 2).float().mean().item() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("size", [2, 1])
def test_metaopt_on_the_smallest_maps(size):
    method = regularizers.build("dropblock:drop_prob=0.5,variant=metaopt", Site(4, size, size, 4, 4))
    for seed in range(30):
        torch.manual_seed(seed)
        y = method(torch.ones(1, 4, size, size))
        assert y.isfinite().all() and y.mean().item() == pytest.approx(1.0 if y.any() else 0.0)


def test_what_is_left_is_rescaled_by_one_factor_for_the_batch():
    torch.manual_seed(0)
    mask = regularizers.build("dropblock:drop_prob=0.2", Site(8, 10, 10, 3, 4)).mask(torch.randn(6, 8, 10, 10))
    left = mask[mask > 0]
    assert torch.allclose(left, torch.tensor(mask.numel() / left.numel()))


def test_images_of_64_px_have_large_blocks_and_a_clipped_default_is_remarked():
    """Small are those below 64 px, which Tiny ImageNet's are not."""
    found = backbones.build("conv4", "dropblock", 64).regularizers
    assert [(method.site.depth, method.block_size, method.remark) for method in found] == [
        (3, 5, ""), (4, 4, "default block 5 clipped to the 4x4 map"),
    ]  # fmt: skip
    assert regularizers.build("dropblock", Site(8, 5, 5, 4, 4, image_size=84)).remark == "", "it fits"


def test_a_block_fits_the_shorter_side():
    site = Site(8, 4, 9, 4, 4, image_size=84)
    method = regularizers.build("dropblock", site)
    assert (method.block_size, method.remark) == (4, "default block 5 clipped to the 4x9 map")
    with pytest.raises(UserError, match="block_size=5 is larger than the 4x9 map at site 4; give at most 4"):
        regularizers.build("dropblock:block_size=5", site)
    with pytest.raises(UserError, match="dropblock:block_size=0 is not a positive number"):
        regularizers.build("dropblock:block_size=0", site)


def test_where_the_images_size_is_not_known_each_stage_has_halved_the_map():
    """4x4 after four stages means images of 64 px, 4x4 after three 32 px."""
    assert [regularizers.build("dropblock", Site(8, 4, 4, depth, 4)).block_size for depth in (3, 4)] == [2, 4]
