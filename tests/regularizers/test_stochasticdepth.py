"""Stochastic depth against torchvision, its survival rates, and its place in residual blocks."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import stochastic_depth

from fewshot import backbones, regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Site
from fewshot.regularizers.stochasticdepth import branch_mask, survival


def branch_site(depth: int, depths: int = 4) -> Site:
    return Site(8, 6, 6, depth, depths, "branch")


def test_survival_is_linear_in_depth():
    """Eq. 4 with p_L = 0.5: four blocks, and the paper's own example of 54."""
    assert [survival(0.5, block, 4) for block in (1, 2, 3, 4)] == [0.875, 0.75, 0.625, 0.5]
    assert survival(0.5, 27, 54) == 0.75 and survival(0.5, 54, 54) == 0.5
    assert sum(survival(0.5, block, 54) for block in range(1, 55)) == pytest.approx(40.25)  # "about 3/4 of the blocks"


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("drop_prob", [0.3, 0.5, 1.0])
def test_equals_torchvision_with_the_same_noise(batch, drop_prob):
    method = regularizers.build(f"stochasticdepth:drop_prob={drop_prob}", branch_site(3))
    x = torch.randn(batch, 8, 6, 6)
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        y = method(x)
        torch.manual_seed(seed)
        assert torch.equal(y, stochastic_depth(x, 0.75 * drop_prob, "batch"))
        seen.add(method.dropped.item())
    assert seen == {0.0, 1.0}
    assert method.eval()(x) is x


def test_a_branch_that_never_stays_is_zero():
    method = regularizers.build("stochasticdepth:drop_prob=1", branch_site(4))
    x = torch.randn(3, 8, 6, 6)
    assert torch.equal(method(x), torch.zeros_like(x)) and method.dropped == 1


def test_drop_fraction():
    torch.manual_seed(0)
    masks = branch_mask(20_000, 0.625, torch.device("cpu"))
    assert masks.unique().tolist() == pytest.approx([0, 1.6])
    assert (masks == 0).float().mean().item() == pytest.approx(0.375, rel=0.03)


def test_a_block_without_its_branch_is_its_shortcut():
    """A block without its branch is its shortcut, batch norm, LeakyReLU and pool; the branch gets no gradient."""
    torch.manual_seed(0)
    network = backbones.build("resnet12", "stochasticdepth@4:drop_prob=1", 32)
    images = torch.randn(4, 3, 32, 32)
    plain = backbones.build("resnet12", "none", 32)
    plain.load_state_dict(network.state_dict(), strict=False)
    x = images
    for block in plain.blocks[:3]:
        x = block(x)
    last = plain.blocks[3]
    shortcut = last.shortcut_norm(last.shortcut(x))
    expected = torch.nn.functional.leaky_relu(torch.nn.functional.max_pool2d(shortcut, 2), 0.1)
    embedded = network(images)
    assert torch.equal(embedded, expected.flatten(1))
    embedded.sum().backward()
    gradients = {name: p.grad for name, p in network.blocks[3].named_parameters()}
    assert gradients["conv3.weight"].abs().sum() == 0 and gradients["shortcut.weight"].abs().sum() > 0


def test_blocks_draw_by_themselves_at_their_own_rates():
    network = backbones.build("resnet12", "stochasticdepth", 32)
    methods = network.regularizers
    assert [(m.site.depth, m.site.place, m.survival) for m in methods] == [
        (1, "branch", 0.875), (2, "branch", 0.75), (3, "branch", 0.625), (4, "branch", 0.5),
    ]  # fmt: skip
    assert [(m.site.channels, m.site.height) for m in methods] == [(64, 32), (160, 16), (320, 8), (640, 4)]
    torch.manual_seed(0)
    drawn = torch.tensor([[float(m.mask(torch.empty(2, 1, 1, 1)) == 0) for m in methods] for _ in range(2000)])
    assert drawn.mean(0).tolist() == pytest.approx([0.125, 0.25, 0.375, 0.5], rel=0.15)
    assert (drawn.T.corrcoef() - torch.eye(4)).abs().max() < 0.1


@pytest.mark.parametrize("backbone", ["conv4", "conv512f"])
@pytest.mark.parametrize("reg", ["stochasticdepth", "droppath", "droppath@3,4:drop_prob=0.3", "targetdrop+droppath"])
def test_backbones_without_residual_blocks_decline_it(backbone, reg):
    with pytest.raises(UserError) as error:
        backbones.build(backbone, reg, 32)
    named = reg.removeprefix("targetdrop+")
    reason = "it acts within residual blocks, and this backbone has none; take resnet12, or another regularizer"
    assert str(error.value) == f"{named}: {reason}"


@pytest.mark.parametrize("name", ["stochasticdepth", "droppath"])
def test_wrong_sites_and_rates_are_refused(name):
    for depth in (0, 5):
        with pytest.raises(UserError) as error:
            backbones.build("resnet12", f"{name}@{depth}", 32)
        where = f"it acts within residual blocks, where there is no site {depth}; this backbone has 1, 2, 3, 4"
        assert str(error.value) == f"{name}@{depth}: {where}"
    with pytest.raises(UserError, match=f"{name}:drop_prob=1.5 is not within 0..1"):
        backbones.build("resnet12", f"{name}:drop_prob=1.5", 32)
