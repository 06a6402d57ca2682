"""fewshot.benchmark: any module, or features, on the same tasks as the commands; wrong input is one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torchvision

import fewshot
from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.data import open_dataset

TEST = open_dataset("glyphs")["test"]


class Pixels(torch.nn.Module):
    """Embeds an image as its 8 x 8 averages, a map that is not flat; remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape[1:]), x.min().item(), x.max().item(), self.training))
        return torch.nn.functional.adaptive_avg_pool2d(x, 8)


def test_a_torchvision_network_in_three_lines():
    network = torchvision.models.resnet18(weights=None)
    scores = fewshot.benchmark(network, dataset="glyphs", head="r2d2", shots=(1, 5), episodes=100)
    assert network.training
    assert [(s.ways, s.shots, s.queries, s.task_list) for s in scores] == [
        (5, 1, 15, "glyphs-test-5w1s15q"), (5, 5, 15, "glyphs-test-5w5s15q")
    ]  # fmt: skip
    assert 0.2 < scores[0].accuracy < scores[1].accuracy < 0.9
    assert str(scores[0]).startswith("glyphs test, 5-way 1-shot: ") and str(scores[0]).endswith("% (100 episodes)")


def test_equals_the_runs_own_result(small_run):
    rows = json.loads((small_run / "result.json").read_text())["results"]
    for row, score in zip(rows, fewshot.benchmark(fewshot.load(small_run), "glyphs", episodes=50), strict=True):
        assert score.episodes_digest == row["episodes_digest"]
        assert score.accuracy == pytest.approx(row["accuracy"], abs=1e-4)
        kept = np.load(small_run / row["episodes_file"])
        assert np.abs(kept - score.accuracies).max() <= 2 / 75  # on a GPU, a query or two may lie on a boundary


def test_images_come_normalised_or_as_the_transform_makes_them():
    network = Pixels()
    fewshot.benchmark(network, "glyphs", shots=1, episodes=2)
    shape, low, high, training = network.seen[0]
    assert shape == (3, 32, 32) and low < 0 < high and not training
    network = Pixels()
    fewshot.benchmark(network, "glyphs", shots=1, episodes=2, transform=lambda x: x[..., :16, :])
    shape, low, high, _ = network.seen[0]
    assert shape == (3, 16, 32) and 0 <= low and high <= 1


def test_everything_is_left_in_the_mode_and_place_that_it_was_in():
    network = torchvision.models.resnet18(weights=None).train()
    network.bn1.eval()
    head = heads.build("proto")
    fewshot.benchmark(network, "glyphs", head, shots=np.int64(1), episodes=2)
    assert network.training and network.layer1.training and not network.bn1.training and head.training


def test_other_pixels_are_warned_of():
    dataset = dataclasses.replace(open_dataset("glyphs"), fingerprint="f" * 64)
    with pytest.warns(UserWarning, match="pixels of this glyphs are not the reference copy's"):
        (score,) = fewshot.benchmark(Pixels(), dataset, shots=1, episodes=2)
    assert score.fingerprint == "f" * 64


def test_features_are_scored_as_the_network_that_made_them(tmp_path):
    network = Pixels()
    images = torch.from_numpy(np.array(TEST.images)).permute(0, 3, 1, 2) / 255
    features = network(images).flatten(1)
    expected = fewshot.benchmark(network, "glyphs", episodes=200, transform=lambda x: x)
    np.save(tmp_path / "features.npy", features.numpy())
    for given in (features, features.numpy(), tmp_path / "features.npy", str(tmp_path / "features.npy")):
        assert fewshot.benchmark(given, "glyphs", episodes=200) == expected


def test_labelled_features_need_no_data_set_and_no_order(tmp_path):
    """Two classes that are apart, one image of each side among the other's: by hand."""
    features = torch.tensor([[0.0], [10.0], [0.2], [9.8], [0.1], [10.1]])
    labels = ["low", "high"] * 3
    (score,) = fewshot.benchmark(features, labels=labels, shots=1, ways=2, queries=2, episodes=30)
    assert score.accuracy == 1 and score.task_list is None
    np.save(tmp_path / "labels.npy", np.array(labels))
    (swapped,) = fewshot.benchmark(
        features[[1, 0, 2, 3, 4, 5]], labels=tmp_path / "labels.npy", shots=1, ways=2, queries=2, episodes=30
    )
    assert 0 < swapped.accuracy < 1
    shuffled = [4, 1, 0, 5, 3, 2]
    again = fewshot.benchmark(
        features[shuffled], labels=[labels[i] for i in shuffled], shots=1, ways=2, queries=2, episodes=30
    )
    assert again[0].episodes_digest == score.episodes_digest


@pytest.mark.parametrize(
    "model, options, complaint",
    [
        (torch.zeros(3, 4), {"dataset": "glyphs"}, f"shape .{len(TEST.images)}, D., one row an image, not .3, 4."),
        (torch.zeros(4), {"labels": [0, 1, 0, 1]}, "one row an image"),
        (torch.zeros(len(TEST.images), 2).index_fill(0, torch.tensor(7), float("nan")), {"dataset": "glyphs"},
         "embedding of image 7 of the test split"),
        (Pixels(), {"labels": [0, 1]}, "labels belong to features"),
        (Pixels(), {"dataset": "mini-imagenet", "data_root": "nowhere"}, "not prepared"),
        (Pixels(), {"dataset": "glyphs", "ways": 100}, "100-way episodes need 100 classes"),
        (Pixels(), {"dataset": "glyphs", "head": "knn"}, "unknown head 'knn'"),
        (Pixels(), {"dataset": "glyphs", "episodes": 1}, "an interval needs at least 2"),
        (torch.zeros(4, 2), {"labels": [[0], [1], [0], [1]]}, "labels must be an array of 1 dimension, of numbers or text"),
        (np.array([["a"]]), {"dataset": "glyphs"}, "features must be an array of 2 dimensions, of numbers, not"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "dataset": "glyphs"}, "leave one of the two out"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "transform": abs}, "these are features"),
        ("nowhere.npy", {"dataset": "glyphs"}, "nowhere.npy is not a .npy file"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(model, options, complaint):
    with pytest.raises(UserError, match=complaint):
        fewshot.benchmark(model, **options)
