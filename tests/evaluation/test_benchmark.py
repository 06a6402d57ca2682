"""fewshot.benchmark: any module, or features, on the same tasks as the commands; wrong input is one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

import fewshot
from fewshot import heads, transforms
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.heads.proto import Proto

TEST = open_dataset("glyphs")["test"]


class Pixels(torch.nn.Module):
    """Embeds an image as its 8 x 8 averages, a map that is not flat; remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((tuple(x.shape[1:]), x.min().item(), x.max().item(), self.training))
        return torch.nn.functional.adaptive_avg_pool2d(x, 8)


def headless():
    """torchvision's smallest ResNet without its classifier."""
    network = torchvision.models.resnet18(weights=None)
    network.fc = torch.nn.Identity()
    return network


def test_a_torchvision_network_in_three_lines():
    network = headless()
    scores = fewshot.benchmark(network, dataset="glyphs", head="r2d2", shots=(1, 5), episodes=100)
    assert network.training
    assert [(s.ways, s.shots, s.queries, s.task_list) for s in scores] == [
        (5, 1, 15, "glyphs-test-5w1s15q"), (5, 5, 15, "glyphs-test-5w5s15q")
    ]  # fmt: skip
    assert 0.2 < scores[0].accuracy < scores[1].accuracy < 0.9
    assert str(scores[0]).startswith("glyphs test, 5-way 1-shot: ") and str(scores[0]).endswith("% (100 episodes)")


def test_equals_the_runs_own_result(small_run):
    rows = json.loads((small_run / "result.json").read_text())["results"]
    scores = fewshot.benchmark(fewshot.load(small_run, device="cpu"), "glyphs", episodes=50)
    for row, score in zip(rows, scores, strict=True):
        assert score.episodes_digest == row["episodes_digest"]
        assert (score.accuracy, score.ci95) == pytest.approx((row["accuracy"], row["ci95"]), abs=1e-9)
        assert np.abs(np.load(small_run / row["episodes_file"]) - score.accuracies).max() <= 1e-7


def test_images_come_normalised_or_preprocessed():
    network = Pixels()
    fewshot.benchmark(network, "glyphs", shots=1, episodes=2)
    shape, low, high, training = network.seen[0]
    assert shape == (3, 32, 32) and low < 0 < high and not training
    network = Pixels()
    fewshot.benchmark(network, "glyphs", shots=1, episodes=2, preprocess=lambda x: x[..., :16, :])
    shape, low, high, _ = network.seen[0]
    assert shape == (3, 16, 32) and 0 <= low and high <= 1


def test_everything_is_left_in_the_mode_and_place_that_it_was_in():
    network = headless().train()
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
    expected = fewshot.benchmark(network, "glyphs", episodes=200, preprocess=lambda x: x)
    np.save(tmp_path / "features.npy", features.numpy())
    for given in (features, features.numpy(), tmp_path / "features.npy", str(tmp_path / "features.npy")):
        assert fewshot.benchmark(given, "glyphs", episodes=200) == expected


def test_labelled_features_need_no_data_set_and_no_order(tmp_path):
    """Two classes that are apart, then with one image of each among the other's: by hand."""
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


def test_a_classifiers_class_scores_are_warned_of():
    """torchvision's whole ResNet; a linear layer within a network is no classifier, nor is one by itself."""
    with pytest.warns(UserWarning, match="output of its linear layer 'fc': if that is a classifier") as seen:
        fewshot.benchmark(torchvision.models.resnet18(weights=None), "glyphs", shots=1, episodes=2)
    assert len(seen) == 1 and seen[0].filename == __file__
    within = torch.nn.Sequential(Pixels(), torch.nn.Flatten(), torch.nn.Linear(192, 5), torch.nn.ReLU())
    fewshot.benchmark(within, "glyphs", shots=1, episodes=2)
    fewshot.benchmark(torch.nn.Linear(32, 32), "glyphs", shots=1, episodes=2)
    assert not within[2]._forward_hooks


class Shifted(Proto):
    """A user's own: ProtoNet on embeddings less the mean of the base classes' means, at length 1."""

    needs_base, by_products, trainable = True, False, False

    def fit_base(self, features, labels):
        self.mean = torch.stack([features[labels == label].mean(0) for label in labels.unique()]).mean(0)

    def solve(self, support, targets, query):
        support, query = (F.normalize(part - self.mean, dim=2) for part in (support, query))
        return super().solve(support, targets, query)


def test_transforms_and_heads_are_fitted_on_the_training_split():
    """A module embeds that split itself; features come with it. By hand: CL2N (Wang et al., 2019)."""
    network, train = Pixels(), open_dataset("glyphs")["train"]
    images = [torch.from_numpy(np.array(split.images)).permute(0, 3, 1, 2) / 255 for split in (TEST, train)]
    features, base = (network(each).flatten(1) for each in images)
    by_hand = F.normalize(features - base.mean(0))
    options = {"dataset": "glyphs", "shots": 5, "episodes": 100}
    (expected,) = fewshot.benchmark(by_hand, **options)
    (by_module,) = fewshot.benchmark(network, **options, transform="center+l2", preprocess=lambda x: x)
    (by_features,) = fewshot.benchmark(features, **options, transform="center+l2", base=base)
    for score in (by_module, by_features):
        assert np.abs(score.accuracies - expected.accuracies).max() <= 1 / 75 + 1e-9
        assert score.accuracy == pytest.approx(expected.accuracy, abs=1e-3)
    assert fewshot.benchmark(features, **options) != [expected]
    by_head = [
        fewshot.benchmark(features, **options, head=Shifted(), base=base),
        fewshot.benchmark(network, **options, head=Shifted(), preprocess=lambda x: x),
    ]
    assert by_head[0][0].accuracy == pytest.approx(by_head[1][0].accuracy, abs=1e-3)
    with_labels = {"labels": TEST.labels, "shots": 5, "episodes": 100, "head": Shifted(), "base": base}
    (by_names,) = fewshot.benchmark(features, **with_labels, base_labels=np.array(train.classes)[train.labels])
    (uneven,) = fewshot.benchmark(features, **with_labels, base_labels=["one", *["others"] * (len(base) - 1)])
    assert 0.2 < by_names.accuracy < 1 and (by_names.accuracies != uneven.accuracies).any()


def test_a_models_own_transform_is_used_unless_another_is_given(small_run):
    model = fewshot.load(small_run, device="cpu")
    options = {"dataset": "glyphs", "shots": 1, "episodes": 100}
    plain = fewshot.benchmark(model, **options)
    model.transform = transforms.build("l2")
    own = fewshot.benchmark(model, **options)
    assert own != plain and own == fewshot.benchmark(model, **options, transform="l2")
    assert fewshot.benchmark(model, **options, transform="none") == plain


def test_base_features_that_are_missing_or_do_not_fit_are_named():
    features, train = torch.randn(len(TEST.images), 4), len(open_dataset("glyphs")["train"].images)
    labelled = {"labels": TEST.labels, "shots": 1, "episodes": 2}
    for options, complaint in (
        ({"transform": "center"}, "transform Center needs features of the base classes"),
        ({"head": Shifted()}, "head Shifted needs features of the base classes"),
        ({"head": Shifted(), "base": torch.randn(9, 4)}, "head Shifted needs the base images' labels"),
        ({"transform": "center", "base": torch.randn(9, 3)}, "base has 3 features an image, and the images .* have 4"),
        ({"transform": "center", "base": torch.full((9, 4), torch.nan)}, "base: the features of image 0 are not"),
        ({"base": torch.randn(9, 4), "base_labels": [1, 2]}, "there are 2 base_labels, and base has 9 images"),
        ({"transform": "center", "base": "no.npy"}, "base: no.npy is not a .npy file"),
    ):
        with pytest.raises(UserError, match=complaint):
            fewshot.benchmark(features, **labelled, **options)
    with pytest.raises(UserError, match=rf"base must have the shape \({train}, D\)"):
        fewshot.benchmark(features, "glyphs", transform="center", base=torch.randn(9, 4))


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
        (torch.zeros(4, 2), {"labels": [[0], [1], [0], [1]]}, "labels must be an array of 1 dimension, of numbers or"),
        (np.array([["a"]]), {"dataset": "glyphs"}, "features must be an array of 2 dimensions, of numbers, not"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "dataset": "glyphs"}, "leave one of the two out"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "preprocess": abs}, "these are features"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "transform": "centre"}, "unknown transform 'centre'"),
        (Pixels(), {"dataset": "glyphs", "base": torch.zeros(3, 4)}, "base belongs to features"),
        (torch.zeros(4, 2), {"labels": [0, 1, 0, 1], "base_labels": [1]}, "give base, too"),
        ("nowhere.npy", {"dataset": "glyphs"}, "nowhere.npy is not a .npy file"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(model, options, complaint):
    with pytest.raises(UserError, match=complaint):
        fewshot.benchmark(model, **options)


FEATURES, LABELS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32), np.repeat(np.arange(10), 20)


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"model": np.zeros((0, 8)), "labels": np.zeros(0)}, "must have the shape (0, D)"),
        ({"model": np.zeros((200, 0))}, "must have the shape (200, D), one row an image, not (200, 0)"),
        ({"model": torch.zeros(200, 8, dtype=torch.complex64)}, "not complex numbers"),
        ({"model": [[1, 2], [3]], "labels": [0, 1]}, "features: this is no array"),
        ({"episodes": 10.5}, "episodes=10.5: give an integer"),
        ({"episodes": "10"}, "episodes='10': give an integer"),
        ({"episodes": 10**30}, "give an integer from 0 to 10,000,000"),
        ({"shots": 1.5}, "shots=1.5: give an integer"),
        ({"shots": float("nan")}, "shots=nan: give an integer"),
        ({"shots": []}, "shots is empty"),
        ({"ways": 2.5}, "ways=2.5: give an integer"),
        ({"queries": 5.5}, "queries=5.5: give an integer"),
        ({"split": 3}, "split=3: give a name"),
        ({"head": 5}, "head=5: give its name"),
        ({"transform": 5}, "transform=5: give its name"),
        ({"transform": "center", "base": np.zeros((0, 8))}, "base must have the shape (N, D)"),
    ],
    ids=str,
)
def test_features_and_numbers_that_are_none_are_one_line(given, expected):
    with pytest.raises(UserError) as refused:
        fewshot.benchmark(**{"model": FEATURES, "labels": LABELS, "queries": 5, "episodes": 10} | given)
    assert expected in str(refused.value) and "\n" not in str(refused.value)


class Returning(torch.nn.Module):
    """A network whose output is whatever `wanted` makes of its flat images."""

    def __init__(self, wanted):
        super().__init__()
        self.wanted, self.calls = wanted, 0

    def forward(self, x):
        self.calls += 1
        return self.wanted(x.flatten(1), self.calls)


@pytest.mark.parametrize(
    "wanted, expected",
    [
        (lambda x, n: x[:-1], "shape (0, 3072) for 1 image: it must return one row"),
        (lambda x, n: x.mean(0, keepdim=True), "shape (1, 3072) for 100 images"),
        (lambda x, n: torch.cat([x, x]), "shape (2, 3072) for 1 image"),
        (lambda x, n: x.mean(), "shape () for 1 image"),
        (lambda x, n: x[:, :0], "shape (1, 0) for 1 image"),
        (lambda x, n: x[:, : 10 + n], "returned 12 features an image at first, and 13 for image 100"),
        (lambda x, n: (x, x), "returned a tuple, not a tensor"),
        (lambda x, n: None, "returned a NoneType, not a tensor"),
        (lambda x, n: x.to(torch.complex64), "complex64 of shape (1, 3072)"),
    ],
)
def test_a_network_must_return_a_row_for_each_image(wanted, expected):
    with pytest.raises(UserError) as refused:
        fewshot.benchmark(Returning(wanted), "glyphs", episodes=10)
    assert expected in str(refused.value)
