"""Score a model on a split under one or several protocols; write the rows into its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewshot import runs
from fewshot.compute import Compute, describe
from fewshot.data.store import Dataset
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.evaluation.solve import embed_split, episode_accuracies
from fewshot.evaluation.statistics import CI_METHOD, summarise
from fewshot.model import Model
from fewshot.runs import Run

EPISODES_SEED = 0  # the same tasks for everyone


def accuracies(
    model: Model, dataset: Dataset, split: str, protocols: Sequence[Protocol], episodes: int, compute: Compute
) -> dict[Protocol, np.ndarray]:
    """Per-episode accuracies (episodes,) for each protocol; every image is embedded once for all of them."""
    samplers = [EpisodeSampler(dataset[split], protocol, EPISODES_SEED) for protocol in protocols]
    embeddings = embed_split(model.backbone, model.normalise, dataset[split], compute)
    return {s.protocol: episode_accuracies(model.head, embeddings, s, episodes) for s in samplers}


def score_run(
    run: Run, model: Model, dataset: Dataset, protocols: Sequence[Protocol], episodes: int, compute: Compute
) -> list[dict[str, Any]]:
    """Score on the test split and keep rows and per-episode accuracies in the run folder, whose lock is held.

    `dataset` has images of the model's size, and `episodes` is 2 or more.
    """
    scored = accuracies(model, dataset, "test", protocols, episodes, compute)
    environment = runs.environment()  # asks git: once, not once a row
    by = {key: environment[key] for key in ("commit", "versions")}
    by |= {"device": describe(compute.device), "precision": compute.precision}
    rows = [_row(run, dataset, protocol, values) | {"evaluated_by": by} for protocol, values in scored.items()]
    config, trained = run.config, run.resolved
    summary = {
        "backbone": config.backbone, "head": config.head, "regularizer": config.reg, "recipe": config.recipe,
        "seed": config.seed, "parameters": trained["parameters"], "trained_on": config.dataset,
        "train_fingerprint": trained["fingerprint"], "train_seconds": run.environment.get("train_seconds"),
        "steps": config.steps, "device": run.environment.get("device"), "commit": run.environment["commit"],
    }  # fmt: skip
    run.write_result(summary, rows)
    return rows


def _row(run: Run, dataset: Dataset, protocol: Protocol, values: np.ndarray) -> dict[str, Any]:
    summary = summarise(values)
    name = f"episodes-{dataset.name}-test-{protocol.ways}w{protocol.shots}s{protocol.queries}q.npy"
    return {
        "dataset": dataset.name, "split": "test", "ways": protocol.ways, "shots": protocol.shots,
        "queries": protocol.queries, "episodes": summary.episodes, "accuracy": summary.accuracy,
        "std": summary.std, "ci95": summary.ci95, "ci_method": CI_METHOD, "episodes_seed": EPISODES_SEED,
        "episodes_digest": EpisodeSampler(dataset["test"], protocol, EPISODES_SEED).digest(summary.episodes),
        "membership": dataset["test"].membership, "fingerprint": dataset.fingerprint, "head": run.config.head,
        "episodes_file": run.write_episodes(name, values),
    }  # fmt: skip
