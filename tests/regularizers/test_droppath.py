"""DropPath against torchvision and a plain loop over images; in a network, beside other methods, compiled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import stochastic_depth

from fewshot import backbones, regularizers
from fewshot.regularizers import Site


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("drop_prob", [0.3, 0.5, 1.0])
def test_equals_torchvision_with_the_same_noise(batch, drop_prob):
    method = regularizers.build(f"droppath:drop_prob={drop_prob}", Site(8, 6, 6, 3, 4, "branch"))
    x = torch.randn(batch, 8, 6, 6)
    for seed in range(30):
        torch.manual_seed(seed)
        y = method(x)
        torch.manual_seed(seed)
        assert torch.equal(y, stochastic_depth(x, 0.75 * drop_prob, "row"))
        assert method.dropped.item() == pytest.approx((y == 0).flatten(1).all(1).float().mean().item())
    assert method.eval()(x) is x


def test_images_draw_by_themselves():
    method = regularizers.build("droppath:drop_prob=0.4", Site(8, 6, 6, 4, 4, "branch"))
    torch.manual_seed(0)
    mask = method.mask(torch.empty(20_000, 8, 1, 1))
    assert mask.shape == (20_000, 1, 1, 1)
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.6])
    dropped = (mask == 0).float()
    assert dropped.mean().item() == pytest.approx(0.4, rel=0.03)
    # Were neighbours to share a draw, means over pairs would vary twice as much.
    assert dropped.view(-1, 2).mean(1).var().item() == pytest.approx(0.4 * 0.6 / 2, rel=0.05)


def batch_norm(x, norm):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


def test_in_a_network_it_multiplies_the_branch_before_the_shortcut_is_added():
    """ResNet-12's layers written out, with the noise drawn block by block: DropPath, then DropBlock after the pool."""
    network = backbones.build("resnet12", "droppath@2,4:drop_prob=0.6+dropblock@4:drop_prob=0.2", 32)
    found = [(type(r).__name__, r.site.depth, r.site.place) for r in network.regularizers]
    assert found == [("DropPath", 2, "branch"), ("DropPath", 4, "branch"), ("DropBlock", 4, "map")]
    images = torch.randn(8, 3, 32, 32)
    torch.manual_seed(4)
    embedded = network(images)
    torch.manual_seed(4)
    x = images
    for number, block in enumerate(network.blocks, start=1):
        out = F.leaky_relu(batch_norm(F.conv2d(x, block.conv1.weight, padding=1), block.norm1), 0.1)
        out = F.leaky_relu(batch_norm(F.conv2d(out, block.conv2.weight, padding=1), block.norm2), 0.1)
        out = batch_norm(F.conv2d(out, block.conv3.weight, padding=1), block.norm3)
        if number in (2, 4):
            out = stochastic_depth(out, 0.6 * number / 4, "row")
        out = out + batch_norm(F.conv2d(x, block.shortcut.weight), block.shortcut_norm)
        x = F.max_pool2d(F.leaky_relu(out, 0.1), 2)
    x = network.regularizers[-1](x)
    assert 0 < network.regularizers[1].dropped < 1
    assert torch.allclose(embedded, x.flatten(1), atol=1e-4)


def test_evaluation_and_other_places_know_nothing_of_it():
    torch.manual_seed(0)
    network = backbones.build("resnet12", "droppath", 32)
    plain = backbones.build("resnet12", "none", 32)
    plain.load_state_dict(network.state_dict(), strict=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), plain.eval()(images))
    assert network.weight_decay_scale == 1
    network.begin_step(0.25)
    assert [reg.progress.item() for reg in network.regularizers] == [0.25] * 4


def test_on_small_images_what_follows_a_block_keeps_its_default_block():
    """A branch is not yet pooled: its site must not be taken for one of a larger image."""
    network = backbones.build("resnet12", "droppath+dropblock", 32)
    assert all(reg.site.small_images for reg in network.regularizers)
    assert not any(reg.site.small_images for reg in backbones.build("resnet12", "droppath+cutout").regularizers)


@pytest.mark.parametrize(
    "backbone, reg",
    [("resnet12", "cutout+droppath+dropblock@3,4+stochasticdepth@4"), ("conv4", "cutout+targetdrop@1")],
)
def test_a_network_with_it_compiles_whole(backbone, reg):
    torch.compiler.reset()
    network = backbones.build(backbone, reg, 16)
    images = torch.randn(8, 3, 16, 16)
    torch.manual_seed(1)
    expected = network(images)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    assert torch.equal(compiled(images), expected)
