"""Networks of timm and torchvision, and plain modules: against their own code, with weights, and as users use them."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from commands import SMALL, one_line_error
from torch import nn

import fewshot
from fewshot import backbones, describe, evaluate, leaderboard, show, train
from fewshot import model as models
from fewshot.core import console
from fewshot.core.components import parse
from fewshot.core.errors import UserError
from fewshot.runs import Run

timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'fewshot[test]')")
TINY = "timm:test_resnet.r160_in1k"  # 373,000 parameters
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """A user's own network: it knows nothing of us."""

    def __init__(self, width=8, pooled: bool = True, img_size: int = 224):
        super().__init__()
        self.seen, self.pooled = img_size, pooled
        self.features = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x):
        assert x.shape[-1] == self.seen
        return self.features(x).mean((2, 3)) if self.pooled else self.features(x)


PLAIN = f"{__name__}.Plain"


def run(command, *args) -> int:
    return console.run(command.main, [str(arg) for arg in args])


def test_a_bare_first_value_is_the_option_that_a_component_declares():
    (spec,) = parse("timm:test_resnet.r160_in1k,size=64")
    assert (spec.name, spec.value, spec.options) == ("timm", "test_resnet.r160_in1k", {"size": "64"})
    assert parse(str(spec)) == [spec] and str(spec) == "timm:test_resnet.r160_in1k,size=64"
    assert backbones.build("timm:name=test_resnet", image_size=32).features == 96
    for wrong, expected in {
        "conv4:3": "cannot read option '3' of 'conv4:3': write key=value",
        "timm": "needs its option 'name': write timm:VALUE",
        "timm:test_resnet,name=test_vit": "option 'name' is given twice",
    }.items():
        with pytest.raises(UserError, match=expected):
            backbones.build(wrong)


@pytest.mark.parametrize("spec", [TINY, "torchvision:resnet18"])
def test_embeds_as_its_own_collection_does(spec):
    torch.manual_seed(1)
    backbone = backbones.build(spec, image_size=32).eval()
    torch.manual_seed(1)
    if spec == TINY:
        theirs = timm.create_model("test_resnet.r160_in1k").eval()
        pooled = theirs.global_pool(theirs.forward_features(IMAGES))
    else:
        from torchvision.models import resnet18

        theirs = resnet18().eval()
        caught = []
        theirs.avgpool.register_forward_hook(lambda *args: caught.append(args[2].flatten(1)))
        theirs(IMAGES)
        (pooled,) = caught
    theirs.fc = nn.Identity()
    backbone.network.load_state_dict(theirs.state_dict())
    assert torch.equal(backbone(IMAGES), pooled) and backbone.features == pooled.shape[1]
    assert backbone.stages == ("layer1", "layer2", "layer3", "layer4")
    assert torch.equal(backbone.channel_weights(pooled), pooled), "a global average: features are channels"


def test_a_network_for_one_size_is_given_that():
    backbone = backbones.build("timm:test_vit", image_size=32).eval()
    network, large = backbone.network, F.interpolate(IMAGES, (160, 160), mode="bilinear", antialias=True)
    assert torch.equal(backbone(IMAGES), network(large)) and backbone.facts["network"]["input_size"] == 160
    other = backbones.build("timm:test_vit,size=64", image_size=32)
    assert other.network.patch_embed.img_size == (64, 64) and other(IMAGES).shape == (2, other.features)
    assert not backbone.stages, "tokens are no maps"
    with pytest.raises(UserError, match=r"'blocks.0' gives no map \(N, C, H, W\) but a tensor"):
        backbones.build("timm:test_vit", "targetdrop@blocks.0", 32)
    assert backbones.build("torchvision:squeezenet1_1,size=64", image_size=32)(IMAGES).shape == (2, 512)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x[..., ::4, ::4].permute(0, 2, 3, 1)


def test_channels_last_is_no_map():
    network = backbones.Foreign(32, nn.Sequential(nn.Conv2d(3, 6, 1), ChannelsLast(), nn.Flatten()), stages=("1",))
    with pytest.raises(UserError, match=r"'1' gives no map .* but a tensor \(N, 8, 8, 6\)"):
        network.place("none")


def test_first_weights_come_from_the_seed():
    drawn = [models.build(TINY, "none", "proto", 32, (0.5,) * 3, (0.25,) * 3, seed) for seed in (0, 0, 1)]
    first, again, other = ([w for w in each.backbone.parameters() if w.ndim == 4] for each in drawn)
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, other))


@pytest.mark.parametrize("network", ["mobilenet_v3_small", "efficientnet_b0", "squeezenet1_1"])
def test_without_regularizers_a_network_of_torchvision_has_none(network):
    """Theirs have dropout, stochastic depth, or both: with these off, two passes in training mode are equal."""
    backbone = backbones.build(f"torchvision:{network}", image_size=32)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert backbone.training and torch.equal(backbone(IMAGES), backbone(IMAGES))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_a_file_are_loaded_and_recorded(tmp_path, ending):
    theirs = timm.create_model("test_resnet")  # with its classifier
    file = tmp_path / f"mine.{ending}"
    if ending == "pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, file)
    else:
        safetensors.torch.save_file(theirs.state_dict(), file)
    built = models.build(f"timm:test_resnet,weights={file}", "dropout@layer1", "proto", 32, (0.1,) * 3, (0.2,) * 3)
    ours = built.backbone.network.state_dict()
    assert all(torch.equal(ours[name], theirs.state_dict()[name]) for name in ours) and "fc.weight" not in ours
    assert built.backbone.facts["weights"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert built.backbone.normalisation == ((0.5,) * 3, (0.5,) * 3), "as timm says of these weights"
    assert torch.equal(built.normalise(torch.full((1, 3, 1, 1), 0.5)), torch.zeros(1, 3, 1, 1))
    unlike = backbones.build(f"timm:test_resnet,weights={file},normalise=dataset", image_size=32)
    assert unlike.normalisation is None


def test_weights_that_do_not_fit_or_cannot_be_trusted_are_one_line(tmp_path):
    class Sly:
        def __reduce__(self):
            return (print, ("executed",))

    other, sly, text = (tmp_path / name for name in ("other.pth", "sly.pth", "text.safetensors"))
    torch.save(nn.Linear(2, 2).state_dict(), other)
    torch.save({"w": Sly()}, sly)
    text.write_text("no tensors")
    for file, expected in {
        other: r"another network: conv1.0.weight, conv1.1.weight, conv1.1.bias and \d+ more missing; weight, bias unk",
        sly: "no state dict that can be read safely", text: "no state dict that can be read safely",
        tmp_path / "absent.pth": "cannot be read .No such file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=expected) as error:
            backbones.build(f"timm:test_resnet,weights={file}", image_size=32)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("spec, expected", [
    ("timm:tset_resnet", "timm has no network 'tset_resnet'; nearest: test_resnet, "),
    ("timm:test_resnet.mine", "nearest: test_resnet.r160_in1k; timm.list_pretrained"),
    ("torchvision:resnet81", "torchvision has no network 'resnet81'; nearest: resnet18, "),
    ("timm:test_resnet,size=8", "timm:test_resnet,size=8: give 16 to 1024 pixels"),
    ("torchvision:vit_b_16,size=100", "torchvision:vit_b_16,size=100: Input shape indivisible by patch size!"),
    ("timm:test_resnet,pretrained=true,weights=x", "contradict one another"),
    ("timm:test_resnet,normalise=mine", "Valid: auto, dataset, weights"),
])  # fmt: skip
def test_what_there_is_not_is_one_line(spec, expected):
    with pytest.raises(UserError) as error:
        backbones.build(spec, image_size=32)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_names_of_modules_are_helped_with():
    with pytest.raises(UserError, match="no module 'layer3.bn'; nearest: layer"):
        backbones.build(TINY, "targetdrop@layer3.bn", 32)
    with pytest.raises(UserError, match="'global_pool' gives no map .* but a tensor .N, 96"):
        backbones.build(TINY, "targetdrop@global_pool", 32)


def test_published_weights_begin_a_training_and_are_not_fetched_to_read_a_run(monkeypatch):
    published, create = timm.create_model("test_resnet.r160_in1k", num_classes=0), timm.create_model
    fetched = []

    def fetch(*args, pretrained=False, **kwargs):
        fetched.extend([1] * pretrained)
        return published if pretrained else create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", fetch)
    backbone = backbones.build(f"{TINY},pretrained=true", image_size=32)
    assert all(map(torch.equal, backbone.network.parameters(), published.parameters())) and fetched == [1]
    assert backbone.facts["weights"]["from"] == TINY and len(backbone.facts["weights"]["sha256"]) == 64
    backbones.build(f"{TINY},pretrained=true", image_size=32, begin=False)
    assert fetched == [1]


def test_offline_and_without_timm_it_says_what_to_do(monkeypatch):
    create = timm.create_model

    def unreachable(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host\nand more")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match=r"^timm:test_resnet,pretrained=true: .*no route to host\).*weights=FILE$"):
        backbones.build("timm:test_resnet,pretrained=true", image_size=32)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^timm is not installed: pip install 'fewshot\[timm\]'$"):
        backbones.build("timm:test_resnet", image_size=32)


def test_a_plain_module_is_a_backbone_by_its_name(tmp_path, capsys):
    backbone = backbones.build(f"{PLAIN}:width=4", "targetdrop@features.2", 32)
    assert isinstance(backbone.network, Plain) and backbone.network.seen == 32 and backbone.features == 4
    assert backbone(IMAGES).shape == (2, 4) and type(backbone).__module__ == __name__
    assert backbones.build(f"{PLAIN}:pooled=false,size=16", image_size=32).features == 8 * 7 * 7
    file = tmp_path / "plain.pth"
    torch.save(Plain(4).state_dict(), file)
    begun = backbones.build(f"{PLAIN}:width=4,weights={file}", image_size=32)
    assert torch.equal(begun.network.features[0].weight, torch.load(file, weights_only=True)["features.0.weight"])
    with pytest.raises(UserError, match="width=much is not an integer"):
        backbones.build(f"{PLAIN}:width=much", image_size=32)
    with pytest.raises(UserError, match="is no backbone"):
        backbones.build("fewshot.heads.proto.Proto", image_size=32)
    assert run(describe, PLAIN) == 0
    assert "A user's own network" in (said := capsys.readouterr().out) and "width" in said and "weights" in said


def test_a_timm_network_trains_resumes_is_evaluated_and_shown(tmp_path, monkeypatch, capsys):
    flags = [*SMALL, "--backbone", TINY, "--reg", "targetdrop@layer2:drop_prob=0.5", "--checkpoint-seconds", 0.001]
    flags += ["--episodes-per-epoch", 24]  # 12 steps an epoch
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(train, *flags, "--out", whole) == 0
    settled = json.loads((whole / "config.json").read_text())["resolved"]
    assert settled["parameters"] == sum(w.numel() for w in fewshot.load(whole, device="cpu").backbone.parameters())
    assert settled["features"] == 96 and settled["network"]["name"] == TINY
    assert settled["regularizers"][0].startswith("site layer2: TargetDrop")

    model, passes = type(timm.create_model("test_resnet")), []
    forward = model.forward

    def until_the_fifteenth_step(self, x):
        passes.extend([x] * self.training)
        if len(passes) == 15:
            raise KeyboardInterrupt
        return forward(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", until_the_fifteenth_step)
        assert run(train, *flags, "--out", cut) == console.INTERRUPTED
    assert run(train, "--out", cut, "--resume") == 0
    assert (cut / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    losses = [[row["loss"] for row in Run.open(folder).metrics() if "loss" in row] for folder in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 24

    assert run(evaluate, whole, "--shots", 2, "--episodes", 40) == 0
    assert fewshot.load(whole, device="cpu").backbone.network.conv1[0].weight.shape == (16, 3, 3, 3)
    table = tmp_path / "board.csv"
    assert run(leaderboard, "--runs", tmp_path, "--csv", table) == 0 and f",{TINY},proto," in table.read_text()
    for what in (["masks", whole, "--site", "layer2"], ["cam", whole, "--site", "layer2"],
                 ["activations", whole, "--site", "layer3.0"]):  # fmt: skip
        assert run(show, *what, "--images", 2, "--out", tmp_path / f"{what[0]}.svg") == 0, what
    assert "what is taken away after layer2 (48 maps of 4x4)" in capsys.readouterr().out.replace("\n", " ")
    assert run(show, "masks", whole, "--site", "layer4") == 2
    assert "is not at site layer4 but at layer2" in one_line_error(capsys)
    assert run(show, "cam", whole, "--site", "layr2") == 2
    assert "--site: this network has no module 'layr2'; nearest: layer2" in one_line_error(capsys)


def test_sites_lists_what_can_be_named(capsys):
    assert run(show, "sites", "--backbone", TINY, "--image-size", 32) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["2", "layer2", "48", "x", "4", "x", "4", "Sequential"] in rows
    assert ["layer1.0.conv1", "32", "x", "8", "x", "8", "Conv2d"] in rows
    assert not any(word.startswith("global_pool.flatten") or word == "fc" for row in rows for word in row)
    for name in {row[-6] for row in rows if row[-4:-3] == ["x"]}:
        backbones.build(TINY, f"dropout@{name}", 32)
    assert run(show, "sites") == 0
    assert ["4", "blocks.3", "64", "x", "5", "x", "5", "_Block"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]
    assert run(show, "sites", "--backbone", "resnet12", "--image-size", 0) == 2
    assert "--image-size 0: give 1 to" in one_line_error(capsys)


def test_what_torchvision_publishes_is_taken_without_its_classifier(tmp_path, monkeypatch):
    """From a file as from a download; images are then normalised as ImageNet's are, also if only that is asked for."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    of_imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    published, file = squeezenet1_1().state_dict(), tmp_path / "squeezenet.pth"
    torch.save(published, file)
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: published)
    sources = {f"weights={file}": str(file), "pretrained=true": "torchvision:squeezenet1_1.IMAGENET1K_V1"}
    for option, source in sources.items():
        begun = backbones.build(f"torchvision:squeezenet1_1,{option}", image_size=32)
        ours = begun.network.state_dict()
        assert set(published) - set(ours) == {"classifier.1.weight", "classifier.1.bias"}
        assert all(torch.equal(tensor, published[name]) for name, tensor in ours.items())
        assert begun.normalisation == of_imagenet and begun.facts["weights"]["from"] == source
    assert backbones.build("timm:resnet18,normalise=weights", image_size=32).normalisation == of_imagenet
    assert backbones.build(TINY, image_size=32).normalisation is None


@pytest.mark.parametrize("within", ["state_dict", "model_state_dict", "model", ""])
def test_weights_are_found_within_a_checkpoint_and_another_shape_is_named(tmp_path, within):
    theirs, file = Plain(4).state_dict(), tmp_path / "plain.pth"
    torch.save({"epoch": 3, within: theirs} if within else theirs, file)
    begun = backbones.build(f"{PLAIN}:width=4,weights={file}", image_size=32)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in begun.network.state_dict().items())
    with pytest.raises(UserError, match="another network: features.0.weight, .* and 3 more of another shape$"):
        backbones.build(f"{PLAIN}:width=5,weights={file}", image_size=32)
