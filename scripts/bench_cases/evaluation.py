"""Evaluation: the suite's own with each head, and learn2learn's, which embeds images again in every episode."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from common import case, wait_for
from peer import Peer
from torch import Tensor

from fewshot.config import TrainConfig
from fewshot.core.process import huge_pages
from fewshot.data import open_dataset

SHOTS, QUERIES = (1, 5), 15
EPISODES = {"cpu": 10, "cuda": 100}  # of each number of shots, in learn2learn's turn


@case
def evaluate_proto(config: TrainConfig, steps: int) -> dict[str, Any]:
    """ProtoNet: see `_evaluate`."""
    return _evaluate(dataclasses.replace(config, head="proto"))


@case
def evaluate_r2d2(config: TrainConfig, steps: int) -> dict[str, Any]:
    """R2D2: see `_evaluate`."""
    return _evaluate(dataclasses.replace(config, head="r2d2"))


def _evaluate(config: TrainConfig) -> dict[str, Any]:
    """Seconds of the test that every run ends with, including the embedding of its images, by an untrained network."""
    from fewshot import model as models
    from fewshot.core import compute
    from fewshot.episodes import EpisodeSampler, Protocol, Tasks
    from fewshot.evaluation.score import score

    huge_pages()
    where = compute.choose(config.device, config.precision)
    compute.settle(where, config.threads)
    compute.keep_heap()
    dataset = open_dataset(config.dataset, config.data_root)
    split, episodes = dataset["test"], config.test_episodes
    model = models.build(config.backbone, "none", config.head, dataset.image_size, dataset.mean, dataset.std)
    model = model.to(where.device)
    wanted = [Tasks(EpisodeSampler(split, Protocol(5, shots, QUERIES), 0), episodes) for shots in SHOTS]
    if where.device.type == "cuda":  # a GPU's libraries are loaded, and kernels chosen, before the clock runs
        score(model, [Tasks(tasks.sampler, 10) for tasks in wanted], where, fold=True)
    wait_for(where.device)
    begin = time.perf_counter()
    score(model, wanted, where, fold=True)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "episodes_per_second": len(SHOTS) * episodes / seconds}


@case
def evaluate_learn2learn(config: TrainConfig, steps: int) -> dict[str, Any]:
    """ProtoNet tested as learn2learn's example does: each episode's images are embedded by themselves.

    They are read directly as normalised tensors, without PIL. Half of the episodes are 1-shot and half 5-shot, with 15
    queries, so that its rate is for the same mixture as ours.
    """
    split = open_dataset(config.dataset, config.data_root)["test"]

    def image(number: int) -> Tensor:
        return torch.from_numpy(split.images[number].copy()).permute(2, 0, 1).float().div_(255).sub_(0.5).div_(0.25)

    peer = Peer(config, split, image)
    peer.network.eval()
    tasks = {shots: peer.tasks(shots + QUERIES) for shots in SHOTS}

    @torch.no_grad()
    def episode(shots: int) -> float:
        distances, labels = peer.solve(tasks[shots], shots)
        return (distances.argmin(1) == labels).float().mean().item()

    for shots in SHOTS:
        episode(shots)  # warms up
    count = EPISODES[peer.device.type]
    begin = time.perf_counter()
    for _ in range(count):
        for shots in SHOTS:
            episode(shots)
    seconds = time.perf_counter() - begin
    return {"episodes_per_second": len(SHOTS) * count / seconds, "version": peer.version}
