"""Conv-512F and ResNet-12: published sizes, layouts written out, initialisation, own regularization."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fewshot import backbones
from fewshot.core.errors import UserError


@pytest.mark.parametrize(
    "spec, parameters, features, maps",
    [
        ("conv512f", 2_605_056, 51_200, [42, 21, 10, 5]),
        ("conv512f:variant=r2d2", 2_605_056, 72_576, [42, 21, 10, 9]),
        ("resnet12", 12_424_320, 16_000, [42, 21, 10, 5]),
        ("resnet12:pool=true", 12_424_320, 640, [42, 21, 10, 5]),
    ],
)
def test_parameters_features_and_maps(spec, parameters, features, maps):
    network = backbones.build(spec).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.features == features
    assert [site.height for site in network.sites] == maps
    shapes = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert network(torch.randn(1, 3, 84, 84)).shape == (1, features)
    assert shapes == [(site.channels, site.height, site.width) for site in network.sites]


def test_the_images_size_decides_the_blocks_at_every_site():
    """Block 4 of the r2d2 variant does not halve its map: it is 5x5 for images of 48 px, as for 84 px."""
    for reg, blocks in (("dropblock@1,2,3,4", [2] * 4), ("targetdrop@1,2,3,4", [3] * 4)):
        network = backbones.build("conv512f:variant=r2d2", reg, image_size=48)
        assert [site.height for site in network.sites] == [24, 12, 6, 5]
        assert [method.block_size for method in network.regularizers] == blocks
    with pytest.raises(UserError, match="images of 7 px are too small for this network; give 16 or more"):
        backbones.build("conv512f:variant=r2d2", image_size=7)


def batch_norm(x, norm):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


@pytest.mark.parametrize("variant", ["metaopt", "r2d2"])
def test_conv512f_equals_its_layers_written_out(variant):
    network = backbones.build(f"conv512f:variant={variant}", image_size=32)
    x = images = torch.randn(4, 3, 32, 32)
    maps = []
    for number, block in enumerate(network.blocks, start=1):
        last = number == 4
        x = batch_norm(F.conv2d(x, block.conv.weight, block.conv.bias, padding=1), block.norm)
        x = F.max_pool2d(x, 2, stride=1 if last and variant == "r2d2" else 2)
        if not last or variant == "r2d2":
            x = F.leaky_relu(x, 0.1)
        maps.append(x)
    third = F.max_pool2d(maps[2], 2, stride=1) if variant == "r2d2" else maps[2]
    expected = torch.cat([third.flatten(1), maps[3].flatten(1)], 1)
    assert torch.allclose(network(images), expected, atol=1e-5)


def test_resnet12_equals_its_layers_written_out():
    network = backbones.build("resnet12", image_size=32)
    x = images = torch.randn(4, 3, 32, 32)
    for block in network.blocks:
        out = F.leaky_relu(batch_norm(F.conv2d(x, block.conv1.weight, padding=1), block.norm1), 0.1)
        out = F.leaky_relu(batch_norm(F.conv2d(out, block.conv2.weight, padding=1), block.norm2), 0.1)
        out = batch_norm(F.conv2d(out, block.conv3.weight, padding=1), block.norm3)
        out = out + batch_norm(F.conv2d(x, block.shortcut.weight), block.shortcut_norm)
        x = F.max_pool2d(F.leaky_relu(out, 0.1), 2)
    assert torch.allclose(network(images), x.flatten(1), atol=1e-4)
    pooled = backbones.build("resnet12:pool=true", image_size=32)
    pooled.load_state_dict(network.state_dict())
    assert torch.allclose(pooled(images), x.mean((2, 3)), atol=1e-4)


def test_resnet12_initialisation_is_kaiming_fan_out():
    torch.manual_seed(0)
    for block in backbones.build("resnet12").blocks:
        for conv in (block.conv1, block.conv3, block.shortcut):
            fan_out = conv.out_channels * conv.kernel_size[0] ** 2
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("conv4", []),
        ("conv512f", [(3, "Dropout", 0.1), (4, "Dropout", 0.3)]),
        ("resnet12", [(1, "Dropout", 0.1), (2, "Dropout", 0.1), (3, "DropBlock", 0.1), (4, "DropBlock", 0.1)]),
    ],
)
def test_original_regularization(spec, expected):
    network = backbones.build(spec, reg="original")
    found = [(r.site.depth, type(r).__name__, r.drop_prob) for r in network.regularizers if r.active]
    assert found == expected
    assert all(r.block_size == 5 for r in network.regularizers if hasattr(r, "block_size"))


@pytest.mark.parametrize("spec", ["original@4", "original:drop_prob=0.3", "none+original:0.3"])
def test_original_has_its_own_sites_and_options(spec):
    with pytest.raises(UserError, match="original has its own .*; instead of it, write dropout"):
        backbones.build("conv512f", spec)


def test_original_joins_others():
    network = backbones.build("conv512f", "original+targetdrop@4")
    found = [(r.site.depth, type(r).__name__) for r in network.regularizers]
    assert found == [(3, "Dropout"), (4, "Dropout"), (4, "TargetDrop")]
