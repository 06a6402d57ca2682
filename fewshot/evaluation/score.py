"""Score a model on tasks of a split; write the rows into its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewshot import runs
from fewshot.core.compute import Compute, describe
from fewshot.data.store import Dataset, Split
from fewshot.episodes import DisjointSampler, Tasks, frozen
from fewshot.evaluation.records import Outcomes, Record, keep
from fewshot.evaluation.solve import accuracies, embed_split, solve_episodes
from fewshot.evaluation.statistics import CI_METHOD, summarise
from fewshot.model import Model
from fewshot.runs import Run


def score(model: Model, split: Split, wanted: Sequence[Tasks], compute: Compute) -> list[np.ndarray]:
    """Right queries of each class in each episode, (episodes, W), for each of `wanted`; each image is embedded once."""
    model.eval()  # the head, too
    return solve_episodes(model.head, embed_split(model, split, compute), wanted)


def score_run(
    run: Run, model: Model, dataset: Dataset, wanted: Sequence[Tasks], compute: Compute
) -> list[dict[str, Any]]:
    """Score on one split's tasks; keep rows and every episode's outcome in the run folder, whose lock is held.

    `dataset` has images of the model's size.
    """
    split = wanted[0].sampler.split
    disjoint = [DisjointSampler(split, each.protocol, each.sampler.seed) for each in wanted]
    disjoint = [Tasks(sampler, len(sampler)) for sampler in disjoint]
    scored = score(model, split, [*wanted, *disjoint], compute)
    outcomes = [_outcomes(*each) for each in zip([*wanted, *disjoint], scored, strict=True)]
    records = [Record(*each) for each in zip(outcomes[: len(wanted)], outcomes[len(wanted) :], strict=True)]
    environment = runs.environment()  # asks git: once, not once a row
    by = {key: environment[key] for key in ("commit", "versions")}
    by |= {"device": describe(compute.device), "precision": compute.precision}
    rows = [_row(run, dataset, *each) | {"evaluated_by": by} for each in zip(wanted, records, strict=True)]
    config, trained = run.config, run.resolved
    summary = {
        "backbone": config.backbone, "head": config.head, "regularizer": config.reg, "recipe": config.recipe,
        "seed": config.seed, "parameters": trained["parameters"], "trained_on": config.dataset,
        "train_fingerprint": trained["fingerprint"], "train_seconds": run.environment.get("train_seconds"),
        "steps": config.steps, "device": run.environment.get("device"), "commit": run.environment["commit"],
    }  # fmt: skip
    run.write_result(summary, rows)
    return rows


def _outcomes(tasks: Tasks, right: np.ndarray) -> Outcomes:
    return Outcomes(accuracies(right, tasks.protocol.queries), tasks.sampler.classes(tasks.episodes))


def _row(run: Run, dataset: Dataset, tasks: Tasks, record: Record) -> dict[str, Any]:
    protocol, sampler = tasks.protocol, tasks.sampler
    summary = summarise(record.episodes.accuracies)
    name = frozen.task_name(dataset.name, sampler.split.name, protocol, sampler.seed)
    return {
        "dataset": dataset.name, "split": sampler.split.name, "ways": protocol.ways, "shots": protocol.shots,
        "queries": protocol.queries, "episodes": summary.episodes, "accuracy": summary.accuracy,
        "std": summary.std, "ci95": summary.ci95, "ci_method": CI_METHOD, "episodes_seed": sampler.seed,
        "episodes_digest": tasks.digest, "task_list": tasks.frozen and tasks.frozen.name, "task_list_digest": tasks.frozen and tasks.frozen.digest,
        "membership": sampler.split.membership, "fingerprint": dataset.fingerprint, "head": run.config.head,
    } | keep(run, name, record)  # fmt: skip
