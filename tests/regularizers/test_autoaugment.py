"""AutoAugment: torchvision's operations image by image, where images are not yet normalised, in training only."""

from __future__ import annotations

import pytest
import torch
from commands import SMALL, one_line_error
from torchvision.transforms import AutoAugmentPolicy, v2

from fewshot import backbones, train
from fewshot import model as models
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.runs import Run


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_equals_torchvision_image_by_image(policy, layout):
    model = backbones.build("conv4", f"autoaugment:policy={policy}", 32)
    images = torch.randint(256, (12, 3, 32, 32)).div(255).contiguous(memory_format=layout)
    torch.manual_seed(3)
    changed = model.on_images(images)
    assert changed.is_contiguous(memory_format=layout) and changed.dtype == torch.float32
    transform = v2.AutoAugment(AutoAugmentPolicy(policy))
    torch.manual_seed(3)
    expected = torch.stack([transform((image * 255).round().to(torch.uint8)) for image in images])
    assert torch.equal((changed * 255).round().to(torch.uint8), expected)
    assert not torch.equal(changed, images)
    assert model.eval().on_images(images) is images


def test_it_acts_before_normalisation_and_beside_cutout():
    reg, mean, std = "cutout+autoaugment:policy=svhn", (0.2, 0.5, 0.7), (0.1, 0.2, 0.3)
    model = models.build("conv4", reg, "proto", 32, mean, std).train()
    augment, cutout = sorted(model.backbone.regularizers, key=lambda reg: type(reg).__name__)
    seen = {}
    augment.register_forward_hook(lambda module, given, out: seen.update(images=given[0], augmented=out))
    cutout.register_forward_hook(lambda module, given, out: seen.update(normalised=given[0]))
    images = torch.rand(4, 3, 32, 32)
    model(images)
    assert seen["images"] is images
    assert 0 <= seen["augmented"].min() and seen["augmented"].max() <= 1
    assert torch.allclose(model.normalise(seen["augmented"]), seen["normalised"])


def test_it_trains_and_repeats(tmp_path):
    losses = []
    for name in ("a", "b"):
        assert console.run(train.main, [*SMALL, "--reg", "autoaugment+dropblock", "--out", str(tmp_path / name)]) == 0
        losses.append([row["loss"] for row in Run.open(tmp_path / name).metrics() if "loss" in row])
    assert losses[0] == losses[1]


def test_what_it_is_not_is_named(tmp_path, capsys):
    assert console.run(train.main, [*SMALL, "--reg", "autoaugment@3", "--out", str(tmp_path / "run")]) == 2
    assert "acts on images before they are normalised" in one_line_error(capsys)
    assert console.run(train.main, [*SMALL, "--reg", "autoaugment:policy=best", "--out", str(tmp_path / "run")]) == 2
    assert "cifar10, imagenet, svhn" in one_line_error(capsys)
    (method,) = backbones.build("conv4", "autoaugment").regularizers
    with pytest.raises(UserError, match="no mask"):
        method.mask(torch.rand(1, 3, 84, 84))
