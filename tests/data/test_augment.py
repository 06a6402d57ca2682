"""The batched augmentation equals torchvision's functional transforms, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from scipy import stats

from fewshot import experiment
from fewshot.config import TrainConfig
from fewshot.core.seeding import generator_for
from fewshot.data.augment import Augmentation, to_unit
from fewshot.episodes import EpisodeSampler, Protocol


def reference(image, drawn, i, padding, size):
    """One uint8 image (S, S, 3) through torchvision: pad, crop, jitter in the drawn order, mirror."""
    x = image.permute(2, 0, 1).float() / 255
    x = TF.pad(x, [padding])
    x = TF.crop(x, int(drawn.top[i]), int(drawn.left[i]), size, size)
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    for kind in drawn.order[i].tolist():
        x = adjust[kind](x, drawn.factors[i, kind].item())
    return TF.horizontal_flip(x) if drawn.flip[i] else x


@pytest.mark.parametrize("size, padding, jitter", [(84, 8, 0.4), (32, 3, 0.0), (32, 0, 0.9)])
def test_equals_torchvision(size, padding, jitter):
    images = torch.randint(0, 256, (20, size, size, 3), dtype=torch.uint8)
    augment = Augmentation(padding, jitter)
    index = torch.randint(0, 20, (48,))
    drawn = augment.draw(48, torch.Generator().manual_seed(0))
    batch = augment(images, index, drawn)
    assert batch.shape == (48, 3, size, size) and batch.is_contiguous(memory_format=torch.channels_last)
    for i in range(48):
        assert torch.allclose(batch[i], reference(images[index[i]], drawn, i, padding, size), atol=2e-6)


def test_draws_cover_their_ranges():
    augment = Augmentation(padding=8, jitter=0.4)
    drawn = augment.draw(20_000, torch.Generator().manual_seed(0))
    assert (drawn.top.min(), drawn.top.max()) == (0, 16) and (drawn.left.min(), drawn.left.max()) == (0, 16)
    assert drawn.flip.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.factors.min().item() == pytest.approx(0.6, abs=1e-3)
    assert drawn.factors.max().item() == pytest.approx(1.4, abs=1e-3)
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 6 and counts.min() > 3000
    assert not Augmentation(mirror=False).draw(100, torch.Generator()).flip.any()


def test_the_source_is_left_alone_and_evaluation_only_scales():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    kept = images.clone()
    augment = Augmentation()
    augment(images, torch.arange(4), augment.draw(4, torch.Generator()))
    assert torch.equal(images, kept)
    assert torch.equal(to_unit(images), (images.float() / 255).permute(0, 3, 1, 2))


@pytest.mark.parametrize("regime", ["episodic", "supervised:batch=40"])
def test_a_training_batch_is_augmented_as_configured_and_anew_in_each_step(regime):
    config = TrainConfig(
        dataset="glyphs", regime=regime, epochs=1, episodes_per_batch=2, queries=3, crop_padding=3, jitter=0.2,
        mirror=True, seed=4, device="cpu", precision="fp32",
    )  # fmt: skip
    made = experiment.prepare(config)
    train = made.dataset["train"]
    for step in (0, 1):
        batch = made.regime.batch(step)
        if regime == "episodic":
            index = EpisodeSampler(train, Protocol(5, 1, 3), 4).draw(2 * step, 2).ravel()
        else:
            batch, index = batch.images, made.regime._index(step)
        images = torch.from_numpy(train.images[index])
        drawn = Augmentation(3, 0.2).draw(40, generator_for(4, step, "augmentation"))
        assert len(batch) == 40
        for i in range(40):
            assert torch.allclose(batch[i], reference(images[i], drawn, i, 3, 32), atol=2e-6)


def test_draws_are_uniform_and_owe_nothing_to_one_another():
    """Against scipy's tests of uniformity; correlations within four standard errors of 0."""
    drawn = Augmentation(padding=8, jitter=0.4).draw(20_000, torch.Generator().manual_seed(1))
    for edge in (drawn.top, drawn.left):
        assert stats.chisquare(np.bincount(edge.numpy(), minlength=17)).pvalue > 1e-4
    for factor in drawn.factors.unbind(1):
        assert stats.kstest(factor.double().numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-4
    columns = [drawn.top, drawn.left, drawn.flip, *drawn.factors.unbind(1), drawn.order[:, 0]]
    found = np.corrcoef([each.double().numpy() for each in columns])
    assert np.abs(found - np.eye(len(columns))).max() < 0.03
