"""The main job on the real images: prepared, found without being named, trained on, scored."""

from __future__ import annotations

import json

import pytest
from commands import measured

from fewshot.data import open_dataset
from fewshot.episodes import EpisodeSampler, Protocol

# The standard tasks: digests of the 10,000 test episodes, which depend on class names and counts alone.
TEST_EPISODES = {
    1: "5d2f36bf0e54ec7469486d27dd92a2492b4ded57834a471a297ed2cb87310cda",
    5: "eaa6dfbe9cca11a6f4ee6cc3efcb0d83d3718b34d48ca8a7012d0f07e2a16778",
}


def test_the_pictures_that_are_in_two_splits_are_named(mini_imagenet):
    """Two arctic foxes and a gymnast's bars, also in validation, in another class; equal ones are in another note."""
    _, done = mini_imagenet
    (note,) = [line for line in done.out.splitlines() if "saved anew" in line]
    assert "saved anew: 3: train/n02120079/" in note and note.count(" ~ val/n02114548/") == 2
    assert "train/n03888605/" in note and "~ val/n03535780/" in note


@pytest.mark.parametrize("shots", TEST_EPISODES)
def test_the_tasks_are_the_standard_ones(mini_imagenet, shots):
    root, _ = mini_imagenet
    sampler = EpisodeSampler(open_dataset("mini-imagenet", root)["test"], Protocol(5, shots, 15), seed=0)
    assert sampler.digest(10_000) == TEST_EPISODES[shots]


def test_trains_and_scores_on_the_real_images(mini_imagenet, tmp_path):
    root, _ = mini_imagenet
    flags = [
        "--data-root", root, "--recipe", "mini-imagenet-cpu", "--reg", "targetdrop", "--epochs", 1,
        "--episodes-per-epoch", 24, "--val-episodes", 50, "--test-episodes", 200, "--out", tmp_path / "run",
    ]  # fmt: skip
    done = measured("train", *flags)
    assert done.out.startswith(f"Data set: mini-imagenet (prepared under {root}).")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    one, five = result["results"]
    assert (one["shots"], five["shots"]) == (1, 5)
    # A network of three steps: above chance (0.20), below what a trained one reaches.
    assert 0.22 < one["accuracy"] < 0.45 and one["accuracy"] < five["accuracy"] < 0.60
