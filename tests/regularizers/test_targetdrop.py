"""TargetDrop against its hand check, a plain loop in float64, and its edge cases."""

from __future__ import annotations

import math

import pytest
import torch

from fewshot import backbones, regularizers
from fewshot.regularizers import Site
from fewshot.regularizers.targetdrop import TargetDrop, targetdrop_mask, targets


def test_hand_check():
    """M = [.9, .1, .8, .2], rate .5, k = 3, 4x4 maps of ones with a 5 at c0 (0, 0) and c2 (2, 1)."""
    x = torch.ones(1, 4, 4, 4)
    x[0, 0, 0, 0] = x[0, 2, 2, 1] = 5
    chosen = targets(torch.tensor([[0.9, 0.1, 0.8, 0.2]]), 2)
    mask = targetdrop_mask(x, chosen, 3)
    assert (mask == 0).sum((2, 3)).tolist() == [[4, 0, 9, 0]]
    assert mask.amax((2, 3))[0].tolist() == pytest.approx([4 / 3, 1, 16 / 7, 1])
    assert (mask[0, 0, :2, :2] == 0).all() and (mask[0, 2, 1:, :3] == 0).all()


def brute_force(x, w1, w2, drop_prob, k):
    """The paper's equations 1-6, element by element, in float64."""
    n, c, h, w = x.shape
    out = torch.ones(n, c, h, w, dtype=torch.float64)
    for i in range(n):
        v = [x[i, j].mean().item() for j in range(c)]
        hidden = [max(0.0, sum(w1[a, j].item() * v[j] for j in range(c))) for a in range(len(w1))]
        m = [1 / (1 + math.exp(-sum(w2[j, a].item() * hidden[a] for a in range(len(hidden))))) for j in range(c)]
        chosen = sorted(range(c), key=lambda j: (-m[j], j))[: math.floor(drop_prob * c)]
        for j in chosen:
            a, b = divmod(x[i, j].flatten().argmax().item(), w)
            for row in range(h):
                for column in range(w):
                    if abs(row - a) <= k // 2 and abs(column - b) <= k // 2:
                        out[i, j, row, column] = 0
            left = out[i, j].sum().item()
            out[i, j] *= h * w / left if left else 0
    return out


@pytest.mark.parametrize("size, k", [(10, 5), (8, 3), (5, 5), (4, 4), (2, 2), (1, 1)])
def test_equals_the_equations_written_as_loops(size, k):
    torch.manual_seed(size)
    method = regularizers.build(f"targetdrop:drop_prob=0.3,reduction=4,block_size={k}", Site(20, size, size, 3, 4))
    x = torch.randn(3, 20, size, size)
    expected = brute_force(x.double(), method.w1.double(), method.w2.double(), 0.3, k)
    assert torch.allclose(method.mask(x).double(), expected, atol=1e-6)


def test_exactly_k_channels_in_a_tie_lowest_first_and_all_of_them_on_request():
    tied = torch.tensor([[0.5, 0.7, 0.5, 0.5]])
    assert targets(tied, 2).tolist() == [[1, 1, 0, 0]]
    assert targets(tied, 2, "all").tolist() == [[1, 1, 1, 1]]
    assert targets(torch.full((1, 4), 0.5), 0).tolist() == [[0, 0, 0, 0]]


def test_a_map_with_nothing_left_is_zero():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    assert targetdrop_mask(x, torch.ones(1, 1), 5).abs().sum() == 0


def test_counts_and_widths():
    def build(channels, spec="targetdrop"):
        return regularizers.build(spec, Site(channels, 10, 10, 3, 4))

    assert build(64).count == 9  # floor(9.6)
    assert build(100, "targetdrop:drop_prob=0.29").count == 29  # 0.29 * 100 is 28.999999999999996
    assert build(8).w1.shape == (1, 8)  # at least one hidden unit
    assert not build(4).active  # floor(0.6) channels: the identity
    assert build(64).block_size == 5
    assert regularizers.build("targetdrop", Site(64, 8, 8, 2, 4)).block_size == 3


def test_frozen_attention_is_no_parameter_and_the_parameter_count_is_the_papers():
    assert list(regularizers.build("targetdrop", Site(64, 10, 10, 3, 4)).parameters()) == []
    sites = [Site(c, 10, 10, 3, 4) for c in (64, 128)]
    learned = [regularizers.build("targetdrop:attention=ste", site) for site in sites]
    assert sum(p.numel() for method in learned for p in method.parameters()) == 2560


def test_straight_through_turns_the_sign_when_reversed():
    x = torch.randn(8, 16, 10, 10)
    gradients = []
    for attention in ("ste", "ste_reversed"):
        torch.manual_seed(0)
        method = TargetDrop(Site(16, 10, 10, 3, 4), attention=attention)
        method(x).square().sum().backward()
        gradients.append(method.w1.grad)
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(gradients[0], -gradients[1])


def test_default_sites_follow_the_image_size():
    def depths(image_size):
        return [reg.site.depth for reg in backbones.build("conv4", "targetdrop", image_size).regularizers]

    assert depths(84) == [3, 4] and depths(32) == [2, 3]


@pytest.mark.parametrize(("attention", "sign"), [("ste", 1), ("ste_reversed", -1)])
def test_the_trained_attention_has_the_straight_through_gradient(attention, sign):
    """The mask's derivative by the attention is taken as minus the block of the maximum, times the scale."""
    torch.manual_seed(0)
    method = regularizers.build(f"targetdrop:drop_prob=0.3,reduction=4,attention={attention}", Site(20, 8, 8, 3, 4))
    x, reach = torch.randn(3, 20, 8, 8), method.block_size // 2
    method(x).sum().backward()
    blocks = torch.zeros_like(x)
    for image in range(3):
        for channel in range(20):
            row, column = divmod(int(x[image, channel].argmax()), 8)
            rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (row, column))
            blocks[image, channel, rows, columns] = 1
    with torch.no_grad():
        by_attention = -(x * blocks).sum((2, 3)) * method.mask(x).amax((2, 3))
    w1, w2 = (weight.detach().clone().requires_grad_() for weight in (method.w1, method.w2))
    attended = torch.sigmoid(torch.relu(x.mean((2, 3)) @ w1.T) @ w2.T)
    (sign * by_attention * attended).sum().backward()
    assert torch.allclose(method.w1.grad, w1.grad, atol=1e-5) and torch.allclose(method.w2.grad, w2.grad, atol=1e-5)


def test_gap_drops_in_the_channels_of_the_largest_means():
    method = regularizers.build("targetdrop:drop_prob=0.3,attention=gap", Site(20, 8, 8, 3, 4))
    x = torch.randn(6, 20, 8, 8)
    touched = (method.mask(x) == 0).any(3).any(2)
    for image in range(6):
        assert set(touched[image].nonzero()[:, 0].tolist()) == set(x[image].mean((1, 2)).topk(6).indices.tolist())
