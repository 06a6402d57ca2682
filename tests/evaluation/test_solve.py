"""The batched evaluation equals the plain way: one episode at a time, images embedded afresh."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewshot
from fewshot.compute import choose
from fewshot.data import open_dataset
from fewshot.data.augment import to_unit
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.errors import UserError
from fewshot.evaluation.solve import embed_split, episode_accuracies

CPU = choose("cpu", "fp32")


@pytest.mark.parametrize("protocol", [Protocol(5, 1, 15), Protocol(3, 5, 4)], ids=str)
def test_equals_one_episode_at_a_time(small_run, protocol):
    model = fewshot.load(small_run, device="cpu")
    split = open_dataset("glyphs")["test"]
    sampler = EpisodeSampler(split, protocol, 0)
    fast = episode_accuracies(model.head, embed_split(model.backbone, model.normalise, split, CPU), sampler, 30)
    for number in range(30):
        episode = sampler.draw(number, 1)[0]  # (ways, shots + queries)
        with torch.no_grad():
            z = model(to_unit(torch.from_numpy(split.images[episode.ravel()]))).view(*episode.shape, -1)
        prototypes = z[:, : protocol.shots].mean(1)
        nearest = torch.cdist(z[:, protocol.shots :].flatten(0, 1), prototypes).argmin(1)
        truth = torch.arange(protocol.ways).repeat_interleave(protocol.queries)
        assert fast[number] == pytest.approx((nearest == truth).float().mean().item(), abs=1e-6)


def test_loaded_model_embeds_images_and_refuses_others(small_run):
    model = fewshot.load(small_run, device="cpu")
    images = open_dataset("glyphs")["test"].images[:150]
    embeddings = model.embed(np.array(images))
    assert embeddings.shape == (150, 256) and embeddings.dtype == torch.float32
    split = open_dataset("glyphs")["test"]
    assert torch.allclose(embeddings, embed_split(model.backbone, model.normalise, split, CPU)[:150], atol=1e-5)
    with pytest.raises(UserError, match=r"give uint8 images of shape \(N, 32, 32, 3\)"):
        model.embed(np.zeros((2, 84, 84, 3), np.uint8))


def test_an_embedding_that_is_not_finite_names_its_image(small_run):
    model = fewshot.load(small_run, device="cpu")
    split = open_dataset("glyphs")["test"]
    with torch.no_grad():
        model.backbone.blocks[3].norm.bias[0] = float("nan")
    with pytest.raises(UserError, match="embedding of image 0 of the test split"):
        embed_split(model.backbone, model.normalise, split, CPU)
