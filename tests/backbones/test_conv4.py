"""Conv-4: its published size, its blocks as written in the paper, its initialisation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fewshot import backbones
from fewshot.core.errors import UserError


@pytest.mark.parametrize("image_size, features", [(84, 1600), (32, 256), (16, 64)])
def test_parameters_and_features(image_size, features):
    network = backbones.build("conv4", image_size=image_size)
    assert sum(p.numel() for p in network.parameters()) == 112_832
    assert network.features == features
    assert network.eval()(torch.randn(2, 3, image_size, image_size)).shape == (2, features)


def test_channels():
    """MAML's 32; below 1 there is no network."""
    network = backbones.build("conv4:channels=32")
    assert sum(p.numel() for p in network.parameters()) == 3 * 32 * 9 + 3 * 32 * 32 * 9 + 4 * 2 * 32
    assert network.features == 800
    assert [site.channels for site in network.sites] == [32] * 4
    with pytest.raises(UserError, match="channels=0: give at least 1"):
        backbones.build("conv4:channels=0")


def test_equals_the_published_order_of_layers():
    """conv, batch norm, ReLU, pool; ours pools before ReLU, which must not show, not even in the gradient."""
    network = backbones.build("conv4")
    images = torch.randn(6, 3, 84, 84)
    x = images
    for block in network.blocks:
        x = F.conv2d(x, block.conv.weight, padding=1)
        x = F.batch_norm(x, None, None, block.norm.weight, block.norm.bias, training=True)
        x = F.max_pool2d(F.relu(x), 2)
    expected = x.flatten(1)
    weights = [block.conv.weight for block in network.blocks]
    expected_gradients = torch.autograd.grad(expected.square().mean(), weights)
    embedded = network(images)
    assert torch.allclose(embedded, expected, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(embedded.square().mean(), weights), expected_gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-3)


def test_initialisation():
    torch.manual_seed(0)
    for block in backbones.build("conv4").blocks:
        assert block.conv.bias is None
        assert block.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05)


def test_regularizers_do_not_change_the_initial_weights():
    """Two methods compared at one seed start from the same network."""
    states = []
    for reg in ("none", "targetdrop+dropout@1"):
        torch.manual_seed(0)
        states.append(backbones.build("conv4", reg).blocks.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_images_too_small_are_refused():
    with pytest.raises(UserError, match="images of 8 px are too small for this network; give 16 or more"):
        backbones.build("conv4", image_size=8)
