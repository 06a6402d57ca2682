"""AttentionDrop against its hand check, a plain loop in float64, and its edge cases."""

from __future__ import annotations

import math

import pytest
import torch

from fewshot import regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Site
from fewshot.regularizers._base import largest
from fewshot.regularizers.attentiondrop import attentiondrop_mask, weakening

MODES = pytest.mark.parametrize("mode", ["am", "sm", "ad"])


@pytest.mark.parametrize(
    "mode, expected", [("am", [1, 1, 1, 0, 0]), ("sm", [1, 0.75, 0.5, 0.25, 0]), ("ad", [1, 1, 1, 0.25, 0])]
)
def test_hand_check(mode, expected):
    """F = [0, 1, 2, 3, 4], 40 per cent, drawn everywhere: S, then its two scales."""
    x = torch.arange(5.0).view(1, 1, 1, 5)
    assert (1 - weakening(x, mode, 2)).flatten().tolist() == expected
    for literal, numerator in ((False, 5), (True, 1)):
        mask = attentiondrop_mask(x, torch.ones(1, 1, 1, 1), mode, 2, literal)
        assert mask.flatten().tolist() == pytest.approx([s * numerator / sum(expected) for s in expected])


def brute_force(x, drawn, mode, top_percent, literal):
    """Each map element by element, in float64; `drawn` is of x's shape."""
    n, c, h, w = x.shape
    out = torch.ones(n, c, h * w, dtype=torch.float64)
    for i in range(n):
        for j in range(c):
            values = [v.item() for v in x[i, j].flatten()]
            low, high = min(values), max(values)
            ranked = sorted(range(h * w), key=lambda e: (-values[e], e))
            top = ranked[: math.ceil(round(top_percent * h * w / 100, 6))]
            for e in range(h * w):
                if high > low and drawn[i, j].flatten()[e] and (mode == "sm" or e in top):
                    out[i, j, e] = 0 if mode == "am" else 1 - (values[e] - low) / (high - low)
            total = out[i, j].sum().item()
            out[i, j] *= (1 if literal else h * w) / total if total else 0
    return out.view_as(x)


@pytest.mark.parametrize("threads", [1, 8])
def test_the_top_is_the_first_of_a_stable_sort(threads):
    """With few threads and with many, which select in different ways; with ties, and signs of zero."""
    torch.manual_seed(0)
    x = torch.randn(20, 3, 4, 5).relu().round(decimals=1)
    x[0, 0, 0, 0], x[1] = -0.0, -torch.inf
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in (1, 4, 12, 20):
            first = x.flatten(2).sort(dim=2, descending=True, stable=True).indices[..., :count]
            expected = torch.zeros(20, 3, 20).scatter(2, first, 1.0).view_as(x)
            assert torch.equal(largest(x.flatten(2), count).view_as(x), expected)
    finally:
        torch.set_num_threads(before)


@MODES
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("batch, size, top_percent", [(3, 5, 20), (2, 4, 33), (1, 2, 20), (2, 2, 100), (1, 1, 20)])
def test_equals_the_equations_written_as_loops(mode, literal, batch, size, top_percent):
    options = f"mode={mode},drop_prob=0.7,top_percent={top_percent},literal={literal}"
    method = regularizers.build(f"attentiondrop:{options}", Site(6, size, size, 3, 4))
    torch.manual_seed(size)
    x = torch.randn(batch, 6, size, size)
    x[:, 0] = 0.7  # constant
    x[:, 1] = x[:, 1].round()  # ties
    torch.manual_seed(2)
    noise = torch.rand((batch, 6, 1, 1) if mode == "am" else x.shape)
    torch.manual_seed(2)
    expected = brute_force(x.double(), (noise < 0.7).expand_as(x), mode, top_percent, literal)
    assert torch.allclose(method.mask(x).double(), expected, atol=1e-6)


@MODES
def test_a_draw_is_one_a_map_or_one_an_element(mode):
    torch.manual_seed(0)
    method = regularizers.build(f"attentiondrop:mode={mode},drop_prob=0.5,literal=true", Site(8, 10, 10, 3, 4))
    x = torch.randn(64, 8, 10, 10)
    mask = method.mask(x) / method.mask(x).amax((2, 3), keepdim=True)
    touched = ((mask < 1) & (largest_twenty(x) if mode != "sm" else x > x.amin((2, 3), keepdim=True))).sum((2, 3))
    if mode == "am":
        assert set(touched.unique().tolist()) == {0, 20}
    else:
        assert len(touched.unique()) > 5


def largest_twenty(x):
    return x >= x.flatten(2).sort(descending=True).values[..., 19, None, None]


def test_ties_go_by_position_and_exactly_so_many():
    x = torch.tensor([1.0, 3, 3, 2, 3, 0]).view(1, 1, 2, 3)
    assert weakening(x, "am", 2).flatten().tolist() == [0, 1, 1, 0, 0, 0]
    assert weakening(x, "am", 4).flatten().tolist() == [0, 1, 1, 1, 1, 0]


def test_a_map_with_nothing_left_is_zero():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    for literal in (False, True):
        assert attentiondrop_mask(x, torch.ones(1, 1, 1, 1), "am", 4, literal).abs().sum() == 0


@MODES
def test_constant_and_single_element_maps_stay_as_they_are(mode):
    for size in (1, 2, 5):
        method = regularizers.build(f"attentiondrop:mode={mode},drop_prob=1", Site(3, size, size, 3, 4))
        for value in (0.0, 0.7, -2.0):
            x = torch.full((1, 3, size, size), value)
            assert torch.equal(method(x), x) and method.dropped == 0


def test_the_rate_grows_with_progress():
    method = regularizers.build("attentiondrop:mode=am,drop_prob=0.4", Site(64, 10, 10, 3, 4))
    measured = []
    for progress in (0.0, 0.25, 1.0):
        method.begin_step(progress)
        torch.manual_seed(0)
        method(torch.randn(256, 64, 10, 10))
        measured.append(method.dropped.item())
    assert measured == pytest.approx([0.0, 0.1 * 0.2, 0.4 * 0.2], rel=0.05)


def test_counts_and_wrong_options():
    def build(size, options=""):
        return regularizers.build(f"attentiondrop:mode=am{options}", Site(4, size, size, 3, 4))

    assert [build(size).count for size in (10, 5, 4, 2, 1)] == [20, 5, 4, 1, 1]  # ceil(3.2) and ceil(0.8)
    assert build(10, ",top_percent=55").count == 55
    assert not build(10, ",top_percent=0").active
    with pytest.raises(UserError, match="attentiondrop:top_percent=101.0 is not within 0..100"):
        build(10, ",top_percent=101")


def test_the_defaults_are_the_papers_and_maps_need_not_be_square():
    """AD on a fifth of each map, with the rate that is reached at the end: 0.1."""
    method = regularizers.build("attentiondrop", Site(6, 2, 9, 3, 4))
    torch.manual_seed(0)
    x = torch.randn(20, 6, 2, 9)
    torch.manual_seed(2)
    noise = torch.rand(x.shape)
    torch.manual_seed(2)
    expected = brute_force(x.double(), noise < 0.1, "ad", 20, False)
    assert torch.allclose(method.mask(x).double(), expected, atol=1e-6)
