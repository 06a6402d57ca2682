"""What acts on residual branches: at which modules of any network, at which rate, and where it is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot import backbones
from fewshot.backbones import Foreign
from fewshot.core.errors import UserError


class Block(nn.Module):
    """A branch that is scaled before it is added, and a shortcut, computed first, that only sometimes has layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2) if outputs > inputs else None
        self.conv = nn.Conv2d(inputs, outputs, 3, 2 if outputs > inputs else 1, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.end = nn.Identity()
        self.scale = nn.Parameter(torch.full((outputs, 1, 1), 0.5))

    def forward(self, x):
        short = x if self.shortcut is None else self.shortcut(x)
        return F.relu(torch.add(short, self.scale * self.end(self.norm(self.conv(x)))))


class Net(nn.Module):
    """A convolution to which a learned vector is added, three blocks, an average; `layer2` ends as a block does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.offset = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.layer1, self.layer2 = Block(8, 8), nn.Sequential(Block(8, 16), Block(16, 16))

    def forward(self, x):
        return self.layer2(self.layer1(self.stem(x) + self.offset)).mean((2, 3))


class Numbered(Foreign):
    def __init__(self, image_size: int = 32) -> None:
        super().__init__(image_size, Net(), stages=("layer1", "layer2"))


class Neck(Foreign):
    """Its embedding is the average of its last map after a batch norm, which has learned nothing yet."""

    def __init__(self, image_size: int = 32, *, neck: bool = True) -> None:
        last = [nn.BatchNorm1d(8)] if neck else [nn.Identity()]
        map_ = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU()]
        network = nn.Sequential(nn.Sequential(*map_), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last)
        super().__init__(image_size, network, stages=("0",))


def name(of: type) -> str:
    return f"{__name__}.{of.__name__}"


def survivals(backbone: str, reg: str) -> dict[str, float]:
    built = backbones.build(backbone, reg, 32, begin=False).regularizers
    assert all(method.site.place == "branch" for method in built)
    return {method.site.label: method.survival for method in built}


@pytest.mark.parametrize("method", ["droppath", "stochasticdepth"])
@pytest.mark.parametrize(
    "backbone, number, of, module",
    [
        ("resnet12", 3, 4, "blocks.2.branch"), ("resnet12", 3, 4, "blocks.2.norm3"),
        ("resnet20", 7, 9, "groups.2.0.branch"), ("resnet20", 2, 9, "groups.0.1.norm2"),
        ("resnet18", 8, 8, "groups.3.1.branch"),
    ],
)  # fmt: skip
def test_a_branch_has_one_rate_by_its_number_and_by_its_name(method, backbone, number, of, module):
    (by_number,) = survivals(backbone, f"{method}@{number}").values()
    assert survivals(backbone, f"{method}@{module}") == {module: by_number}
    assert by_number == pytest.approx(1 - number / of * 0.5)


def test_branches_of_other_networks_are_found_and_counted():
    found = survivals("torchvision:resnet18", "droppath@layer1.0.bn2,layer2.1.bn2,layer4.1.bn2:drop_prob=0.8")
    assert found == pytest.approx({"layer1.0.bn2": 0.9, "layer2.1.bn2": 0.6, "layer4.1.bn2": 0.2})
    assert survivals(name(Net), "droppath@layer1.norm,layer2.0.end,layer2.1.norm:drop_prob=0.6") == pytest.approx(
        {"layer1.norm": 0.8, "layer2.0.end": 0.6, "layer2.1.norm": 0.4}
    )


def test_a_named_branch_that_is_dropped_leaves_the_shortcut():
    backbone = backbones.build(name(Net), "stochasticdepth@layer2.1.end:drop_prob=1", 32)
    images, network = torch.randn(2, 3, 32, 32), backbone.network
    before = network.layer2[0](network.layer1(network.stem(images) + network.offset)).detach()
    assert torch.allclose(backbone(images), before.mean((2, 3))) and before.any()


@pytest.mark.parametrize("method", ["droppath", "stochasticdepth"])
@pytest.mark.parametrize(
    "backbone, module, fitting",
    [
        ("torchvision:resnet18", "layer4", "layer4.1.bn2"),  # a stage
        ("torchvision:resnet18", "layer1.0", "layer4.1.bn2"),  # its map is a shortcut, and a branch's input, too
        ("torchvision:resnet18", "layer4.1.bn1", "layer4.1.bn2"),  # in the middle of a branch
        (name(Net), "stem", "layer2.1.end"),  # what a learned vector is added to
        (name(Net), "layer2", "layer2.1.end"),
        (name(Numbered), "layer1", "layer2.1.end"),
        ("resnet20", "groups.1", "groups.2.2.branch"), ("resnet20", "stem", "groups.2.2.branch"),
    ],
)  # fmt: skip
def test_what_ends_no_branch_is_refused(method, backbone, module, fitting):
    with pytest.raises(UserError) as error:
        backbones.build(backbone, f"{method}@{module}", 32, begin=False)
    assert str(error.value) == (
        f"{method}@{module}: it acts within residual blocks, and {module!r} ends no branch of one (its map would be"
        f" added to another, and used for nothing else): name a module that does, such as {method}@{fitting}"
    )


def test_without_names_a_fitting_one_is_told():
    for backbone, fitting in (("torchvision:resnet18", "layer4.1.bn2"), (name(Numbered), "layer2.1.end")):
        for reg in ("droppath", "droppath@2", "dropout@layer1+droppath:drop_prob=0.2"):
            with pytest.raises(UserError, match=f"have no numbers: name a module .* such as droppath@{fitting}$"):
                backbones.build(backbone, reg, 32, begin=False)
    with pytest.raises(UserError, match="'blocks.1' ends no branch .* name a module that does, if there is one$"):
        backbones.build("conv4", "droppath@blocks.1", 32)


def test_sites_know_the_side_of_the_images_that_the_network_sees():
    """Images of 32 px that are resized to 224 within the network have the maps of large images."""
    network = "torchvision:resnet18,size=224"
    resized = backbones.build(network, "targetdrop+dropblock@layer2+cutout+droppath@layer4.1.bn2", 32, begin=False)
    sides = {(method.site.place, method.site.label): method.site.image_size for method in resized.regularizers}
    assert sides == {
        ("map", "3"): 224, ("map", "4"): 224, ("map", "layer2"): 224, ("branch", "layer4.1.bn2"): 224,
        ("input", "0"): 32,
    }  # fmt: skip
    assert [method.block_size for at in ("3", "layer2") for method in resized.at(at)] == [5, 5]
    plain = backbones.build("torchvision:resnet18", "targetdrop", 32, begin=False)
    assert [(method.site.label, method.block_size) for method in plain.regularizers] == [("2", 3), ("3", 2)]


def test_a_batch_norm_after_the_last_map_is_not_the_identity():
    """Untrained, it only divides by sqrt(1 + 1e-5): class weights would be taken for those of the map's channels."""
    plain = backbones.build(f"{name(Neck)}:neck=false", "camdrop@1", 32)
    weights = torch.randn(3, 8)
    assert torch.equal(plain.channel_weights(weights), weights)
    backbone = backbones.build(name(Neck), "none", 32)
    with pytest.raises(UserError, match="Neck cannot tell class weights .* its embedding is neither"):
        backbone.channel_weights(weights)
    with pytest.raises(UserError, match="Neck cannot tell class weights"):
        backbones.build(name(Neck), "camdrop@1", 32)
    norm = backbone.network[3]
    assert torch.equal(norm.running_var, torch.ones(8)) and torch.equal(norm.weight, torch.ones(8))


@pytest.mark.parametrize("network, seed", [("wrn28_10", 4), ("densenet100", 0)])
def test_how_an_embedding_is_made_does_not_depend_on_the_weights_drawn(network, seed):
    """These have batch norm and ReLU after the last map, which may be nearly zero in a dry run."""
    torch.manual_seed(seed)
    with pytest.raises(UserError, match="cannot tell class weights"):
        backbones.build(network, image_size=32).channel_weights(torch.zeros(1, 1))
