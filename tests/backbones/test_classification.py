"""The networks of the classification tables: published parameter counts, and torchvision's or written-out layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision

from fewshot import backbones
from fewshot.core.errors import UserError


@pytest.mark.parametrize(
    ("spec", "size", "published", "features", "maps"),
    [
        # published: millions, with a linear layer to ten classes, as the papers count
        ("resnet8", 28, "0.08", 64, [(16, 28), (32, 14), (64, 7)]),
        ("resnet20", 32, "0.27", 64, [(16, 32), (32, 16), (64, 8)]),  # He et al., table 6
        ("resnet56", 32, "0.85", 64, [(16, 32), (32, 16), (64, 8)]),
        ("resnet110", 32, "1.7", 64, [(16, 32), (32, 16), (64, 8)]),
        ("resnet18", 32, "11.17", 512, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("vgg16", 32, "14.73", 512, [(64, 16), (128, 8), (256, 4), (512, 2), (512, 1)]),
        ("vgg19", 32, "20.04", 512, [(64, 16), (128, 8), (256, 4), (512, 2), (512, 1)]),
        ("wrn28_10", 32, "36.48", 640, [(160, 32), (320, 16), (640, 8)]),
        ("densenet100", 32, "7.0", 1168, [(400, 32), (784, 16), (1168, 8)]),  # Huang et al., table 2
        ("densenet100:bottleneck=true", 32, "0.77", 342, [(216, 32), (300, 16), (342, 8)]),
    ],
)
def test_published_sizes_and_maps_by_group(spec, size, published, features, maps):
    network = backbones.build(spec, image_size=size)
    parameters = sum(p.numel() for p in network.parameters())
    with_classifier = parameters + 10 * (features + 1)
    decimals = len(published.partition(".")[2])
    assert f"{with_classifier / 1e6:.{decimals}f}" == published
    assert f"{parameters:,}" in (type(network).__doc__ or "")
    assert network.features == features
    assert [(site.channels, site.height) for site in network.sites] == maps


def copied(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
    """Give their network our weights, in the order in which both define them."""
    values = [tensor for name, tensor in ours.state_dict().items() if not name.startswith("regs.")]
    keys = list(theirs.state_dict())
    assert len(keys) == len(values)
    theirs.load_state_dict(dict(zip(keys, values, strict=True)))


def torchvisions_resnet18():
    network = torchvision.models.resnet18()
    network.conv1, network.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    network.fc = torch.nn.Identity()
    return network


def torchvisions_vgg16():
    features = torchvision.models.vgg16_bn().features
    return torch.nn.Sequential(features, torch.nn.Flatten())


def torchvisions_densenet_bc():
    network = torchvision.models.DenseNet(12, (16, 16, 16), 24, 4)
    network.features.conv0 = torch.nn.Conv2d(3, 24, 3, padding=1, bias=False)
    del network.features.norm0, network.features.relu0, network.features.pool0
    network.classifier = torch.nn.Identity()
    return network


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ("resnet18", torchvisions_resnet18),
        ("vgg16", torchvisions_vgg16),
        ("densenet100:bottleneck=true", torchvisions_densenet_bc),
    ],
)
def test_they_are_torchvisions(spec, theirs):
    ours, images = backbones.build(spec, image_size=32), torch.randn(3, 3, 32, 32)
    expected = theirs()
    copied(expected, ours)
    assert torch.allclose(ours.train()(images), expected.train()(images), rtol=1e-3, atol=1e-4)


def batch_norm(x, norm):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def test_resnet20_is_its_layers_written_out():
    """Shortcuts have no parameters: every second position, and zeros for the new channels."""
    network, images = backbones.build("resnet20", image_size=32), torch.randn(2, 3, 32, 32)
    x = F.relu(batch_norm(F.conv2d(images, network.stem[0].weight, padding=1), network.stem[1]))
    for number, group in enumerate(network.groups):
        for place, block in enumerate(group):
            stride = 2 if number and not place else 1
            out = F.relu(batch_norm(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.norm1))
            out = batch_norm(F.conv2d(out, block.conv2.weight, padding=1), block.norm2)
            if stride == 2:
                new = torch.zeros(2, x.shape[1] // 2, *out.shape[2:])
                x = torch.cat([new, x[:, :, ::2, ::2], new], 1)
            x = F.relu(out + x)
    assert torch.allclose(network.train()(images), x.mean((2, 3)), atol=1e-4)


def test_wrn_is_its_layers_written_out():
    network, images = backbones.build("wrn28_10", image_size=16), torch.randn(2, 3, 16, 16)
    x = F.conv2d(images, network.stem.weight, padding=1)
    for number, group in enumerate(network.groups):
        for place, block in enumerate(group):
            stride = 2 if number and not place else 1
            active = F.relu(batch_norm(x, block.norm1))
            out = F.relu(batch_norm(F.conv2d(active, block.conv1.weight, stride=stride, padding=1), block.norm2))
            out = F.conv2d(out, block.conv2.weight, padding=1)
            x = out + (x if place else F.conv2d(active, block.shortcut.weight, stride=stride))
    expected = F.relu(batch_norm(x, network.last[0])).mean((2, 3))
    assert torch.allclose(network.train()(images), expected, rtol=1e-3, atol=1e-4)


def test_sites_are_groups_and_branches_are_blocks():
    """Stochastic depth's rates rise from block to block, not from group to group (Huang et al., eq. 4)."""
    network = backbones.build("resnet20", "targetdrop@1,2+stochasticdepth:drop_prob=0.9", 32)
    drops = [reg for reg in network.regularizers if reg.place == "map"]
    survivals = {int(reg.site.label): reg.survival for reg in network.regularizers if reg.place == "branch"}
    assert [drop.site.label for drop in drops] == ["1", "2"]
    assert survivals == pytest.approx({block: 1 - block / 10 for block in range(1, 10)})
    with torch.no_grad():
        assert network.train()(torch.randn(2, 3, 32, 32)).shape == (2, 64)
    with pytest.raises(UserError, match="there is no site 4; this backbone has 1, 2, 3"):
        backbones.build("resnet20", "targetdrop@4", 32)


def test_images_too_small_for_five_pools_are_named():
    with pytest.raises(UserError, match="images of 28 px are too small for this network; give 32 or more"):
        backbones.build("vgg16", image_size=28)


@pytest.mark.parametrize("spec", ["resnet20", "vgg16", "densenet100:bottleneck=true"])
def test_first_weights_are_he_et_als_by_fan_out(spec):
    """Standard deviation sqrt(2 / fan out) in each convolution, within six standard errors; biases begin at 0."""
    torch.manual_seed(0)
    for conv in backbones.build(spec, image_size=32).modules():
        if isinstance(conv, torch.nn.Conv2d):
            fan_out = conv.out_channels * conv.kernel_size[0] ** 2
            six_errors = 6 / (2 * conv.weight.numel()) ** 0.5
            assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=six_errors)
            assert conv.bias is None or not conv.bias.any()


@pytest.mark.parametrize(
    "spec", ["conv512f", "resnet12", "resnet20", "resnet18", "vgg16", "densenet100:bottleneck=true"]
)
def test_running_statistics_take_a_tenth_of_each_batch(spec):
    """0.9 of the first values, 0 and 1, and 0.1 of the batch's mean and unbiased variance."""
    network, seen = backbones.build(spec, image_size=32).train(), {}
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda module, given: seen.update({module: (given[0].mean((0, 2, 3)), given[0].var((0, 2, 3)))})
        )
    with torch.no_grad():
        network(torch.randn(4, 3, 32, 32))
    for norm in norms:
        mean, variance = seen[norm]
        assert torch.allclose(norm.running_mean, 0.1 * mean, rtol=1e-3, atol=1e-4)
        assert torch.allclose(norm.running_var, 0.9 + 0.1 * variance, rtol=1e-3, atol=1e-4)
