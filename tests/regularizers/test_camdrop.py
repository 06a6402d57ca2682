"""CamDrop against loops in float64, DropBlock, and by hand; its guide from an episode and from a classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from commands import SMALL, one_line_error

import fewshot
from fewshot import backbones, heads, regularizers, train
from fewshot import model as models
from fewshot.config import TrainConfig
from fewshot.core import console
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.learning.regimes.episodic import Episodic
from fewshot.regularizers import Guide, Site
from fewshot.regularizers.camdrop import compress
from fewshot.regularizers.dropblock import dropblock_mask, seed_rate
from fewshot.runs import Run


def plain_camdrop(x, alpha, noise, rate, b, share, candidates, guide):
    """Multiplier (C, H, W) for one image, seed by seed, block by block."""
    channels, height, width = x.shape
    cam = sum(alpha[c] * x[c] for c in range(channels)) if guide == "cam" else x.mean(0)
    kept = int(np.floor((1 - 1 / b**2) * height * width + 0.5))
    count = kept if candidates == "kept" else height * width - kept
    threshold = sorted(cam.flatten())[-count]
    dominant = sorted(range(channels), key=lambda c: (-alpha[c], c))[: max(1, round(share * channels))]
    keep = np.ones(x.shape)
    for c in dominant:
        for top in range(height - b + 1):
            for left in range(width - b + 1):
                if cam[top + b // 2, left + b // 2] >= threshold and noise[c, top, left] < rate:
                    keep[c, top : top + b, left : left + b] = 0
    return keep * (keep.size / keep.sum() if keep.any() else 0)


@pytest.mark.parametrize("guide", ["cam", "avg"])
@pytest.mark.parametrize("candidates", ["kept", "removed"])
@pytest.mark.parametrize("size, block", [(10, 5), (7, 3), (6, 2), (5, 5)])
def test_equals_the_plain_loop(guide, candidates, size, block):
    options = f"drop_prob=0.9,seed_rate=direct,channels=0.25,block_size={block},guide={guide},candidates={candidates}"
    method = regularizers.build(f"camdrop:{options}", Site(16, size, size))
    x = torch.randn(6, 16, size, size, dtype=torch.float64).float()
    weights, labels = torch.randn(3, 16), torch.tensor([0, 1, 2, 2, 0, 1])
    torch.manual_seed(5)
    mask = method.mask(x, Guide(weights, labels))
    torch.manual_seed(5)
    noise = torch.rand(6, 16, size - block + 1, size - block + 1)
    for i in range(6):
        alpha = weights[labels[i]].double().numpy()
        arguments = (0.9, block, 0.25, candidates, guide)
        expected = plain_camdrop(x[i].double().numpy(), alpha, noise[i].numpy(), *arguments)
        assert np.allclose(mask[i], expected, atol=1e-6)
    assert (mask == 0).any() or candidates == "removed"


@pytest.mark.parametrize("size, block", [(10, 5), (8, 4), (5, 2)])
def test_with_all_channels_and_positions_it_is_dropblock_bit_for_bit(size, block):
    method = regularizers.build(f"camdrop:channels=1,block_size={block}", Site(8, size, size))
    x = torch.randn(1, 8, size, size)  # one image: DropBlock rescales over the batch, CamDrop over each image
    everywhere = Guide(torch.zeros(2, 8), torch.zeros(1, dtype=torch.long))  # all positions tie, and ties are in
    for seed in range(20):
        torch.manual_seed(seed)
        ours = method.mask(x, everywhere)
        torch.manual_seed(seed)
        assert torch.equal(ours, dropblock_mask(x, 0.1, block))


def test_by_hand():
    """Two channels of 3x3, r=2: n = (1 - 1/4) * 9 = 7 candidates (6.75), n' = 1 channel, the second."""
    x = torch.tensor([[[[0.0, 0, 0], [0, 9, 1], [0, 1, 1]], [[1.0, 1, 1], [1, 1, 1], [1, 1, 1]]]])
    options = "channels=0.5,block_size=2,drop_prob=1,seed_rate=direct,candidates="
    guide = Guide(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    whole = regularizers.build(f"camdrop:{options}kept", Site(2, 3, 3)).mask(x, guide)
    assert torch.equal(whole[0, 1], torch.zeros(3, 3))  # every block's middle is a candidate: nothing is left of it
    assert torch.equal(whole[0, 0], torch.full((3, 3), 2.0))
    peaks = regularizers.build(f"camdrop:{options}removed", Site(2, 3, 3)).mask(x, guide)
    # The 9 - 7 = 2 largest of J are the 11 in the middle and the tied 3s beside it: all four middles that there are.
    assert torch.equal(peaks, whole)
    x[0, 0, 1, 2] = x[0, 0, 2, 1] = x[0, 0, 2, 2] = 0  # now J has the one peak, and eight equals
    x[0, 0, 0, 0] = 1  # the second, where no block has its middle
    peak = regularizers.build(f"camdrop:{options}removed", Site(2, 3, 3)).mask(x, guide)
    scale = 18 / 14
    assert torch.allclose(peak[0, 1], scale * torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 1, 1]]))
    assert torch.allclose(peak[0, 0], torch.full((3, 3), scale))


def test_weights_are_compressed_by_group_sums():
    weights = torch.arange(12.0).view(1, 12)
    assert torch.equal(compress(weights, 12), weights)
    assert torch.equal(compress(weights, 4), torch.tensor([[3.0, 12, 21, 30]]))
    assert torch.allclose(compress(weights, 5).sum(), weights.sum(), rtol=0.2)  # groups are not whole: only about equal


@pytest.mark.parametrize("spec", ["camdrop", "camdrop:guide=avg", "camdrop:channels=1"])
def test_without_a_guide_it_says_so(spec):
    method = regularizers.build(spec, Site(64, 10, 10, 3, 4))
    x = torch.randn(3, 64, 10, 10)
    for guide in (None, Guide(torch.randn(5, 64), None), Guide(None, torch.zeros(3, dtype=torch.long))):
        with pytest.raises(UserError, match="class weights and the images' classes"):
            method(x, guide)
    with pytest.raises(UserError, match="2 labels for 3 images"):
        method(x, Guide(torch.randn(5, 64), torch.zeros(2, dtype=torch.long)))
    assert method.eval()(x) is x


def test_the_mean_over_all_channels_needs_no_guide():
    method = regularizers.build("camdrop:guide=avg,channels=1", Site(64, 10, 10, 3, 4))
    assert not method.guided
    method(torch.randn(8, 64, 10, 10))
    assert method.dropped > 0


@pytest.mark.parametrize(
    "options, complaint",
    [
        ("channels=0", "leaves none"), ("channels=1.5", "not within"), ("drop_prob=-1", "not within"),
        ("block_size=11", "larger than the 10x10 map"), ("block_size=1", "leaves no candidates"),
        ("guide=map", "avg, cam"), ("candidates=all", "kept, removed"), ("seed_rate=0.1", "direct, dropblock"),
        ("label=mine", "named, own"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(options, complaint):
    with pytest.raises(UserError, match=complaint):
        regularizers.build(f"camdrop:{options}", Site(64, 10, 10, 3, 4))


def test_a_supervised_classifier_guides_it():
    """fc.weight[y]: on flat maps averaged over the positions, on pooled features as it is."""
    for backbone in (backbones.build("conv4", "camdrop"), backbones.build("resnet12:pool=true", "camdrop@4")):
        fc = torch.nn.Linear(backbone.features, 10)
        guide = Guide(backbone.channel_weights(fc.weight), torch.arange(4))
        assert guide.weights.shape == (10, backbone.sites[-1].channels)
        with backbone.guided_by(guide):
            embedding = backbone(torch.randn(4, 3, 84, 84))
        assert embedding.isfinite().all()
        assert all(0 < reg.dropped < 0.1 for reg in backbone.regularizers)


@pytest.mark.parametrize("spec", ["conv4", "conv512f", "conv512f:variant=r2d2", "resnet12", "resnet12:pool=true"])
def test_channel_weights_are_the_deepest_maps_part(spec):
    """Where the deepest map is flat and the others are 0, the classifier's score is that of its channel weights."""
    backbone = backbones.build(spec, image_size=32)
    maps = [torch.zeros(2, site.channels, site.height, site.width) for site in backbone.sites]
    deepest = backbone.sites[-1]
    levels = torch.randn(2, deepest.channels)
    maps[-1] += levels[..., None, None]
    weights = torch.randn(7, backbone.features)
    scores = backbone.embedding(maps) @ weights.T
    positions = 1 if "pool" in spec else deepest.height * deepest.width
    assert torch.allclose(levels @ backbone.channel_weights(weights).T * positions, scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spec", ["proto", "proto:variant=snell", "r2d2", "r2d2:variant=r2d2"])
def test_class_weights_are_what_the_logits_are_linear_in(spec):
    """A step along an embedding moves the logits, but for what all classes share, as the class weights say."""
    head = heads.build(spec)
    support, labels = torch.randn(2, 6, 20), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    query, step = torch.randn(2, 1, 20), 0.1 * torch.randn(2, 1, 20)
    weights = head.class_weights(support, labels)
    assert weights.shape == (2, 3, 20) and not weights.requires_grad
    moved = (head(support, labels, query + step) - head(support, labels, query)).detach()
    moved, said = (each - each.mean(2, keepdim=True) for each in (moved, step @ weights.mT))
    factor = (moved * said).sum() / said.square().sum()
    assert factor > 0
    assert torch.allclose(moved, factor * said, atol=1e-3 * moved.abs().max().item())


def test_an_episodes_guide_is_its_heads_classifier():
    glyphs, reg = open_dataset("glyphs"), "dropout:drop_prob=0.9+camdrop"
    config = TrainConfig(dataset="glyphs", ways=3, shots=2, queries=1, episodes_per_batch=2, reg=reg)
    regime = Episodic.build(config, glyphs, [], Compute(torch.device("cpu"), "fp32"))
    model = models.build("conv4", reg, "proto", 32, glyphs.mean, glyphs.std).train()
    batch = torch.rand(2 * 3 * 3, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    guide = regime.guide(model, batch)
    assert model.training and not guide.weights.requires_grad
    assert guide.named is None  # nothing asks for it, so the queries are not embedded
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    model.eval()
    images = batch.view(2, 3, 3, 3, 32, 32)
    for task in range(2):
        centres = torch.stack([model(images[task, way, :2]).mean(0) for way in range(3)])
        weights = (centres - centres.mean(0)).view(3, 64, 2 * 2).mean(2)
        for way in range(3):
            for image in range(3):
                own = guide.weights[guide.labels[(task * 3 + way) * 3 + image]]
                assert torch.allclose(own, weights[way], atol=1e-5)


def test_queries_are_guided_by_the_class_that_the_network_names():
    """label=named: the nearest centre's class, without regularizers; support images have their own class."""
    glyphs, reg = open_dataset("glyphs"), "dropout:drop_prob=0.9+camdrop:label=named"
    config = TrainConfig(dataset="glyphs", ways=3, shots=2, queries=2, episodes_per_batch=2, reg=reg, embed="separate")
    regime = Episodic.build(config, glyphs, [], Compute(torch.device("cpu"), "fp32"))
    model = models.build("conv4", reg, "proto", 32, glyphs.mean, glyphs.std).train()
    batch = torch.rand(2 * 3 * 4, 3, 32, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    guide = regime.guide(model, batch)
    assert model.training and not regime.warning(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    model.eval()
    z = model(batch).view(2, 3, 4, -1)
    expected = torch.arange(6).view(2, 3, 1).repeat(1, 1, 4)
    for task in range(2):
        nearest = torch.cdist(z[task, :, 2:].flatten(0, 1), z[task, :, :2].mean(1)).argmin(1)
        expected[task, :, 2:] = nearest.view(3, 2) + 3 * task
    assert torch.equal(guide.named, expected.flatten())
    assert not torch.equal(guide.named, guide.labels)  # noise: some are wrong
    support, query = regime.split_guide(guide)
    assert torch.equal(support.named, expected[:, :, :2].flatten())
    assert torch.equal(query.named, expected[:, :, 2:].flatten())
    assert torch.equal(query.labels, torch.arange(6).repeat_interleave(2))


def test_the_mask_goes_by_the_class_that_its_option_says():
    x, site = torch.randn(4, 16, 10, 10), Site(16, 10, 10)
    labels, named = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    weights = torch.randn(3, 16)

    def mask(options: str, guide: Guide):
        torch.manual_seed(0)
        return regularizers.build(f"camdrop:drop_prob=0.5{options}", site).mask(x, guide)

    both = Guide(weights, labels, named)
    assert torch.equal(mask("", both), mask("", Guide(weights, labels)))
    assert torch.equal(mask(",label=named", both), mask("", Guide(weights, named)))
    assert not torch.equal(mask(",label=named", both), mask("", both))
    with pytest.raises(UserError, match=r"Guide\(weights, labels, named\)"):
        mask(",label=named", Guide(weights, labels))


@pytest.mark.parametrize("embed", ["joint", "separate"])
@pytest.mark.parametrize("label", ["own", "named"])
def test_it_trains(tmp_path, capsys, embed, label):
    reg = f"camdrop:drop_prob=0.3,label={label}"
    flags = ["--reg", reg, "--shots", "2", "--embed", embed, "--out", str(tmp_path / "run")]
    assert console.run(train.main, [*SMALL, *flags]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert ("camdrop is given each image's true class" in said) == (label == "own")
    run = Run.open(tmp_path / "run")
    dropped = [row["dropped"] for row in run.metrics() if "loss" in row]
    site = fewshot.load(run.folder).backbone.regularizers[0]
    expected = site.expected_drop
    assert site.rate == seed_rate(0.3, 2, 8, 8)
    assert all(0.3 * expected < fraction < 2 * expected for fraction in dropped)


def test_a_wrong_block_ends_a_run_before_it_begins(tmp_path, capsys):
    assert console.run(train.main, [*SMALL, "--reg", "camdrop@4:block_size=3", "--out", str(tmp_path / "run")]) == 2
    assert "larger than the 2x2 map at site 4" in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("channels", [5, 7, 24, 30])
def test_weights_are_compressed_and_spread_by_adaptive_averages(channels):
    """Where the groups are not whole, and where a map has more channels than the deepest one."""
    expected = []
    for c in range(channels):
        first, last = c * 12 // channels, -(-(c + 1) * 12 // channels)  # floor and ceil
        expected.append(sum(range(first, last)) / (last - first) * 12 / channels)
    assert torch.allclose(compress(torch.arange(12.0).view(1, 12), channels), torch.tensor([expected]))


@pytest.mark.parametrize("height, width, block", [(7, 4, 2), (4, 9, 3), (9, 4, 3)])
def test_maps_need_not_be_square(height, width, block):
    options = f"drop_prob=0.9,seed_rate=direct,channels=0.25,block_size={block}"
    method = regularizers.build(f"camdrop:{options}", Site(16, height, width))
    torch.manual_seed(0)
    x, weights = torch.randn(3, 16, height, width), torch.randn(3, 16)
    torch.manual_seed(5)
    mask = method.mask(x, Guide(weights, torch.arange(3)))
    torch.manual_seed(5)
    noise = torch.rand(3, 16, height - block + 1, width - block + 1)
    for i in range(3):
        image, alpha = x[i].double().numpy(), weights[i].double().numpy()
        expected = plain_camdrop(image, alpha, noise[i].numpy(), 0.9, block, 0.25, "kept", "cam")
        assert np.allclose(mask[i], expected, atol=1e-6)
    method = regularizers.build(f"camdrop:channels=1,block_size={block}", Site(16, height, width))
    assert method.rate == seed_rate(0.1, block, height, width)


@pytest.mark.parametrize("channels, dominant", [(4, 1), (9, 1), (13, 2), (64, 8)])
def test_it_drops_from_an_eighth_of_the_channels_rounded_and_from_one_at_least(channels, dominant):
    """The paper's n' = C/8 (its release takes one more), where every candidate is a seed."""
    method = regularizers.build("camdrop:drop_prob=1,seed_rate=direct,block_size=2", Site(channels, 6, 6))
    torch.manual_seed(0)
    guide = Guide(torch.randn(5, channels), torch.arange(5))
    dropped = method.mask(torch.randn(5, channels, 6, 6), guide) == 0
    assert dropped.flatten(2).any(2).sum(1).tolist() == [dominant] * 5


def test_the_expected_drop_of_the_defaults_is_the_docstrings():
    assert regularizers.build("camdrop", Site(64, 10, 10, 3, 4)).expected_drop == pytest.approx(0.0112, abs=1e-4)


def test_where_it_does_nothing_it_needs_no_guide_and_warns_of_nothing():
    """At a rate of 0, and on maps of one position, where no block leaves candidates."""
    for spec, size in (("camdrop:drop_prob=0", 10), ("camdrop", 1)):
        method = regularizers.build(spec, Site(64, size, size, 4, 4))
        x = torch.randn(2, 64, size, size)
        assert not method.guided and method.warning == "" and method(x) is x
    assert not backbones.build("conv4", "camdrop:drop_prob=0", 32).guided
