"""Networks that know nothing of us: regularizers at modules by name, guides by context, and what is declined."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from commands import SMALL, one_line_error
from torch import nn

import fewshot
from fewshot import backbones, evaluate, regularizers, train
from fewshot.backbones import Backbone, Blocks, Foreign
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.regularizers import Guide, Regularizer
from fewshot.runs import Run


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x):
        return self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))) + self.downsample(x))


class SomebodysNet(nn.Module):
    """As model collections have them: a stem, layers, a global average pool, a classifier that is switched off."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Residual(width, width))
        self.layer2 = nn.Sequential(Residual(width, 2 * width))
        self.layer3 = nn.Sequential(Residual(2 * width, 4 * width))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        self.off = nn.Dropout()

    def forward(self, x):
        return self.fc(self.pool(self.layer3(self.layer2(self.layer1(self.stem(x))))).flatten(1))


class MyNet(Foreign):
    def __init__(self, image_size: int = 84, *, width: int = 8) -> None:
        super().__init__(image_size, SomebodysNet(width), stages=("layer1", "layer2", "layer3"))


class WithoutStages(Foreign):
    def __init__(self, image_size: int = 84) -> None:
        super().__init__(image_size, SomebodysNet())


class Projected(Foreign):
    """Its embedding has one value for each channel of its deepest map, but is not their average."""

    def __init__(self, image_size: int = 84) -> None:
        network = SomebodysNet()
        network.fc = nn.Linear(32, 32)
        super().__init__(image_size, network, stages=("layer1", "layer2", "layer3"))


class OwnLayers(Backbone):
    """Written for us from the start, without blocks in a row."""

    stages = ("left",)

    def __init__(self, image_size: int = 84) -> None:
        super().__init__(image_size)
        self.left, self.right = (nn.Conv2d(3, 4, 3, stride=8) for _ in range(2))

    def embed(self, x):
        return torch.cat([self.left(x), self.right(x)], 1).mean((2, 3))


def block(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))


class OneBlock(Blocks):
    def __init__(self, image_size: int = 84) -> None:
        super().__init__(image_size, [block(3)])


class TwoBlocks(Blocks):
    def __init__(self, image_size: int = 84) -> None:
        super().__init__(image_size, [block(3), block(8)])


class Double(Regularizer):
    """Doubles its map, which shows that it acted, and where."""

    def multiplier(self, x, guide=None):
        return x.new_full((1, 1, 1, 1), 2.0)


def name(of: type) -> str:
    return f"{__name__}.{of.__name__}"


def test_regularizers_act_at_modules_by_name_and_by_number():
    """Doubling layer2's map equals doubling it by hand; a number names the stage at that position."""
    images = torch.randn(4, 3, 32, 32)
    for reg in (f"{name(Double)}@layer2", f"{name(Double)}@2"):
        backbone = backbones.build(name(MyNet), reg, 32)
        plain = SomebodysNet()
        plain.load_state_dict(backbone.network.state_dict())
        doubled = 2 * plain.layer2(plain.layer1(plain.stem(images)))
        by_hand = plain.pool(plain.layer3(doubled)).flatten(1)
        assert torch.equal(backbone(images), by_hand)
        assert not torch.allclose(plain(images), by_hand)
        plain.load_state_dict(backbone.network.state_dict())
        assert torch.equal(backbone.eval()(images), plain.eval()(images))


def test_several_act_in_the_order_written_and_each_knows_its_site():
    backbone = backbones.build(name(MyNet), "dropblock@layer3,layer1.0.conv1+targetdrop@layer3+dropout@3", 32)
    sites = {(type(reg).__name__, reg.site.label): reg.site for reg in backbone.regularizers}
    shapes = {key: (site.channels, site.height, site.depth, site.depths) for key, site in sites.items()}
    assert shapes == {
        ("Dropout", "3"): (32, 4, 3, 3), ("DropBlock", "layer1.0.conv1"): (8, 16, 1, 3),
        ("DropBlock", "layer3"): (32, 4, 3, 3), ("TargetDrop", "layer3"): (32, 4, 3, 3),
    }  # fmt: skip
    assert all(site.image_size == 32 and site.small_images for site in sites.values())
    assert [type(reg).__name__ for reg in backbone.at("layer3")] == ["DropBlock", "TargetDrop"]
    assert [key for key in backbone.state_dict() if key.endswith("w1")] == ["regs.@layer3.1.w1"]
    order = []
    for reg in backbone.regularizers:
        reg.register_forward_hook(lambda module, *_: order.append(f"{type(module).__name__}@{module.site.label}"))
    backbone(torch.randn(2, 3, 32, 32))
    assert order == ["DropBlock@layer1.0.conv1", "Dropout@3", "DropBlock@layer3", "TargetDrop@layer3"]


def test_modules_of_our_own_networks_are_sites_too():
    backbone = backbones.build("conv4", f"{name(Double)}@blocks.2.conv,4", 32)
    assert [(reg.site.label, reg.site.depth, reg.site.height) for reg in backbone.regularizers] == [
        ("4", 4, 2), ("blocks.2.conv", 3, 8),
    ]  # fmt: skip


def test_a_dry_run_leaves_no_trace():
    torch.manual_seed(0)
    network = SomebodysNet()
    network.stem.eval()
    after = torch.random.get_rng_state()

    class Frozen(Foreign):
        def __init__(self, image_size: int = 84) -> None:
            super().__init__(image_size, network)

    before = copy.deepcopy(network.state_dict())
    backbone = Frozen(32)
    backbone.place("dropout@layer3")
    assert torch.equal(torch.random.get_rng_state(), after)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert not network.stem.training and not network.stem[1].training and network.layer1.training


def test_a_guide_reaches_named_sites_within_the_context_only():
    backbone = backbones.build(name(MyNet), "camdrop@layer3:drop_prob=0.5", 32)
    classifier, images = torch.randn(5, backbone.features), torch.randn(4, 3, 32, 32)
    guide = Guide(backbone.channel_weights(classifier), torch.arange(4))
    assert torch.equal(guide.weights, classifier), "pooled features are channels already"
    with backbone.guided_by(guide):
        backbone(images)
        other = Guide(classifier, torch.arange(2))
        with pytest.raises(UserError, match="2 labels for 4 images"), backbone.guided_by(other):
            backbone(images)
        backbone(images)  # the outer guide is back
    assert backbone.regularizers[0].dropped > 0
    with pytest.raises(UserError, match="needs to know the class weights"):
        backbone(images)


@pytest.mark.parametrize(
    "network, reason",
    [(WithoutStages, "has no stages"), (Projected, "its embedding is neither its last"), (OwnLayers, "neither")],
)
def test_a_guide_is_declined_where_class_weights_have_no_channels(network, reason):
    site = "left" if network is OwnLayers else "layer3"
    with pytest.raises(UserError, match=f"{network.__name__} cannot tell class weights .*{reason}"):
        backbones.build(name(network), f"camdrop@{site}", 32)
    backbones.build(name(network), f"camdrop@{site}:guide=avg,channels=1", 32)


def test_a_copy_is_regularized_by_itself():
    """Averaged weights and replicas are deep copies: their hooks must not call the original's regularizers."""
    backbone = backbones.build(name(MyNet), "targetdrop@layer3", 32)
    double = copy.deepcopy(backbone)
    double(torch.randn(2, 3, 32, 32))
    assert double.regularizers[0].dropped > 0 and backbone.regularizers[0].dropped == 0


def test_compiled_it_gives_the_same_and_follows_its_guide():
    torch.compiler.reset()
    images, classifier = torch.randn(4, 3, 32, 32), torch.randn(5, 32)
    backbone = backbones.build(name(MyNet), "camdrop@layer3:drop_prob=0.5+targetdrop@2+cutout", 32)
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    for labels in (torch.arange(4), torch.zeros(4, dtype=torch.long), torch.arange(4)):
        outcomes = []
        for network in (backbone, compiled):
            torch.manual_seed(0)
            with backbone.guided_by(Guide(classifier, labels)):
                outcomes.append(network(images).detach())
        assert torch.allclose(*outcomes, atol=1e-5)
    with torch.compiler.set_stance("fail_on_recompile"), backbone.guided_by(Guide(2 * classifier, labels)):
        compiled(images)


@pytest.mark.parametrize(
    "network, reg, expected",
    [
        (MyNet, "dropout@layr3", "dropout@layr3: this network has no module 'layr3'; nearest: layer3, "),
        (MyNet, "dropout@qqqqq", "no module 'qqqqq'; it has stem, layer1, layer2, layer3, pool, fc, off and theirs"),
        (MyNet, "dropout@fc", "dropout@fc: 'fc' gives no map (N, C, H, W) but a tensor (N, 32)"),
        (MyNet, "dropout@layer2.0.act", "'layer2.0.act' is called 2 times in a pass; take a module that is "),
        (MyNet, "dropout@off", "'off' is called not at all in a pass"),
        (MyNet, "dropout@4", "there is no site 4; this backbone has 1, 2, 3"),
        (MyNet, "cutout@layer1", "it acts on the input, where there is no site layer1; this backbone has 0"),
        (MyNet, "dropblock@layer3:block_size=5", "larger than the 4x4 map at site layer3; give at most 4"),
        (WithoutStages, "dropout", "and this backbone has none; name modules of the network, such as dropout@layer3"),
        (WithoutStages, "dropout@3", "and this backbone has none; name modules"),
    ],
)  # fmt: skip
def test_what_is_no_site_is_one_line(network, reg, expected):
    with pytest.raises(UserError) as error:
        backbones.build(name(network), reg, 32)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_bug_of_the_network_keeps_its_traceback():
    class Broken(Foreign):
        def __init__(self, image_size: int = 84) -> None:
            network = SomebodysNet()
            network.fc = nn.Linear(5, 5)
            super().__init__(image_size, network)

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Broken(32).place("none")


@pytest.mark.parametrize(
    "network, image_size, depths", [(OneBlock, 32, [1]), (TwoBlocks, 32, [1]), (TwoBlocks, 84, [1, 2])]
)
def test_default_sites_are_those_that_there_are(network, image_size, depths):
    for reg in ("none", "targetdrop:drop_prob=0.5"):
        backbone = backbones.build(name(network), reg, image_size)
        assert [reg.site.depth for reg in backbone.regularizers] == depths


def run(command, *args) -> int:
    return console.run(command.main, [str(arg) for arg in args])


@pytest.mark.parametrize("network", [OneBlock, TwoBlocks, WithoutStages])
def test_small_and_numberless_networks_train(tmp_path, network):
    flags = ["--backbone", name(network), "--epochs", 1, "--episodes-per-epoch", 2]
    assert run(train, *SMALL, *flags, "--reg", "none", "--out", tmp_path / "run") == 0


class OneBlockTwice(nn.Module):
    """One layer under two names, as in networks that apply it again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=8)
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 1)] * 2)

    def forward(self, x):
        return self.blocks[1](self.blocks[0](self.stem(x)).relu())


def test_layers_that_share_their_weights_are_kept_and_loaded(tmp_path):
    assert run(train, *SMALL, "--backbone", name(OneBlockTwice), "--out", tmp_path / "run") == 0
    blocks = fewshot.load(tmp_path / "run", device="cpu").backbone.network.blocks
    assert blocks[0] is blocks[1]


class Pair(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x


def test_a_network_that_embeds_into_no_single_tensor_is_refused_in_a_line(tmp_path, capsys):
    assert run(train, *SMALL, "--backbone", name(Pair), "--out", tmp_path / "run") == 2
    assert "must embed images as one tensor (N, features)" in one_line_error(capsys)


def test_a_foreign_network_trains_resumes_and_is_evaluated(tmp_path, monkeypatch, capsys):
    flags = ["--backbone", f"{name(MyNet)}:width=4", "--reg", "targetdrop@layer3:drop_prob=0.5+camdrop@layer2"]
    flags = [*SMALL, *flags, "--episodes-per-epoch", 12, "--checkpoint-seconds", 0.001]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(train, *flags, "--out", whole) == 0
    resolved = json.loads((whole / "config.json").read_text())["resolved"]
    acting = [text.split("(")[0] for text in resolved["regularizers"]]
    assert acting == ["site layer2: CamDrop", "site layer3: TargetDrop"]
    losses = [row for row in Run.open(whole).metrics() if "loss" in row]
    assert all(0 < row["dropped"] < 0.5 for row in losses)

    forward, passes = SomebodysNet.forward, []

    def until_the_eleventh_step(self, x):
        passes.extend([x] * self.training)
        if len(passes) == 11:
            raise KeyboardInterrupt
        return forward(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(SomebodysNet, "forward", until_the_eleventh_step)
        assert run(train, *flags, "--out", cut) == console.INTERRUPTED
    assert run(train, "--out", cut, "--resume") == 0
    assert (cut / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    assert [row["loss"] for row in Run.open(cut).metrics() if "loss" in row] == [row["loss"] for row in losses]

    assert run(evaluate, whole, "--shots", 2, "--episodes", 40) == 0
    model = fewshot.load(whole, device="cpu")
    assert model.backbone.network.layer3[0].conv2.weight.shape == (16, 16, 3, 3)
    capsys.readouterr()
    assert run(train, *SMALL, "--backbone", name(MyNet), "--reg", "targetdrop@layer9", "--out", tmp_path / "no") == 2
    assert "no module 'layer9'; nearest: layer" in one_line_error(capsys)


def test_regularizers_are_built_from_sites_alone():
    site = regularizers.Site(16, 10, 10, label="layer3", image_size=32)
    assert regularizers.build("targetdrop", site).block_size == 3
    assert regularizers.Site(16, 10, 10, 3, 4).label == "3" and not regularizers.Site(16, 10, 10, 3, 4).small_images
