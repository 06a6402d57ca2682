"""Score a model on tasks of a split; write the rows into its run folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fewshot import runs, transforms
from fewshot.core import sources
from fewshot.core.compute import Compute, describe
from fewshot.data.store import Dataset, Split
from fewshot.episodes import DisjointSampler, Tasks, frozen
from fewshot.evaluation import folding
from fewshot.evaluation.embed import VALIDATION_BATCH, embed_base, embed_split
from fewshot.evaluation.overlap import seen
from fewshot.evaluation.records import Outcomes, Record, forget, keep
from fewshot.evaluation.solve import accuracies, solve_episodes, wants_base
from fewshot.evaluation.statistics import CI_METHOD, summarise
from fewshot.heads import Head
from fewshot.identity import digest
from fewshot.model import Model
from fewshot.runs import Run
from fewshot.transforms import Transform


def score(
    model: Model,
    wanted: Sequence[Tasks],
    compute: Compute,
    base: Split | None = None,
    head: Head | None = None,
    transform: Transform | None = None,
    fold: bool = False,
) -> list[np.ndarray]:
    """Right queries of each class in each episode, (episodes, W), for each of `wanted`, all of one split.

    Each image is embedded once. `head` and `transform`: by default the model's own. `base`: the split of the base
    classes, for those that are fitted on them. `fold`: embed by a copy with its batch norms folded, faster and equal to
    rounding; a validation that selects weights does not. UserError where `base` is needed and not given, or where
    nothing finite comes out.
    """
    head = (head or model.head).to(compute.device)
    transform = (transform or model.transform).to(compute.device)
    model.eval()
    head.eval()
    network, at_once = (folding.folded(model), folding.batch(model, compute)) if fold else (model, VALIDATION_BATCH)
    fitted_on = embed_base(network, base, compute, at_once) if base and wants_base(head, transform) else None
    embeddings = embed_split(network, wanted[0].sampler.split, compute, at_once)
    return solve_episodes(head, embeddings, wanted, transform, fitted_on)


def score_run(
    run: Run,
    model: Model,
    dataset: Dataset,
    wanted: Sequence[Tasks],
    compute: Compute,
    head: str | None = None,
    transform: str | None = None,
    replace: bool = False,
    training: Dataset | None = None,
    tested: bool = False,
) -> list[dict[str, Any]]:
    """Score on one split's tasks; keep rows and every episode's outcome in the run folder, whose lock is held.

    `dataset` has images of the model's size. `head` and `transform`: in place of the run's own, as written.
    `replace`: earlier results of the same protocols, on whichever tasks and pixels; else only those on the same ones.
    `training`: the data set that the run was trained on, where it is at hand: rows say what was seen in it.
    `tested`: whether this is the test that the run's configuration asks for.
    """
    split = wanted[0].sampler.split
    solver = model.head if head is None else model.head_for(head)
    mapped = model.transform if transform is None else transforms.build(transform)
    samplers = [DisjointSampler(split, each.protocol, each.sampler.seed) for each in wanted]
    disjoint = [Tasks(sampler, len(sampler)) for sampler in samplers]
    scored = score(model, [*wanted, *disjoint], compute, dataset.splits.get("train"), solver, mapped, fold=True)
    outcomes = [_outcomes(*each) for each in zip([*wanted, *disjoint], scored, strict=True)]
    records = [Record(*each) for each in zip(outcomes[: len(wanted)], outcomes[len(wanted) :], strict=True)]
    environment = runs.environment()  # asks git: once, not once a row
    config = run.config
    shared: dict[str, Any] = {
        "head": head or config.head, "transform": transform or config.transform, "setting": solver.setting,
        "dataset": dataset.name, **dataset.fingerprints,
    }  # fmt: skip
    if theirs := _users_code(solver, mapped):
        shared["solver_code"] = theirs
    by = {key: environment[key] for key in ("commit", "versions")}
    by |= {"device": describe(compute.device), "precision": compute.precision}
    if training is not None and (overlap := seen(training, dataset, split.name)):
        shared["seen_in_training"] = overlap
    other = _other_solver(shared, {"head": config.head, "transform": config.transform})
    rows = [
        _row(tasks, record) | shared | {"evaluated_by": by} for tasks, record in zip(wanted, records, strict=True)
    ]
    before = run.rows
    for row, tasks, record in zip(rows, wanted, records, strict=True):
        row |= keep(run, _name(dataset, tasks) + other, record)
    run.write_result(rows, replace, tested)
    forget(run, before)
    return rows


def _users_code(head: Head, transform: Transform) -> str:
    """Short digest of the user's own modules that solve: "" where head and transform are ours."""
    parts = [head, *(part for part in transform.modules() if isinstance(part, Transform))]
    files = sources.users(dict.fromkeys(type(part).__module__ for part in parts))
    return digest({name: sources.digest(path) for name, path in files.items()}) if files else ""


def _outcomes(tasks: Tasks, right: np.ndarray) -> Outcomes:
    return Outcomes(accuracies(right, tasks.protocol.queries), tasks.sampler.classes(tasks.episodes))


def _row(tasks: Tasks, record: Record) -> dict[str, Any]:
    protocol, sampler = tasks.protocol, tasks.sampler
    summary = summarise(record.episodes.accuracies)
    unbalanced = {} if protocol.query_alpha is None else {"query_alpha": float(protocol.query_alpha)}
    row = {
        "split": sampler.split.name, "ways": protocol.ways, "shots": protocol.shots, "queries": protocol.queries,
        "episodes": summary.episodes, "accuracy": summary.accuracy, "std": summary.std, "ci95": summary.ci95,
        "ci_method": CI_METHOD, "episodes_seed": sampler.seed, "episodes_digest": tasks.digest,
        "task_list": tasks.frozen and tasks.frozen.name, "task_list_digest": tasks.frozen and tasks.frozen.digest,
        "membership": sampler.split.membership,
    } | unbalanced  # fmt: skip
    return row | ({"at_chance": True} if summary.accuracy - summary.ci95 <= 1 / protocol.ways else {})


def _name(dataset: Dataset, tasks: Tasks) -> str:
    return frozen.task_name(dataset.name, tasks.sampler.split.name, tasks.protocol, tasks.sampler.seed)


def _other_solver(used: dict[str, Any], own: dict[str, str]) -> str:
    """What a record's file name says of a head or transform that is not the run's own: readable and unambiguous."""
    other = {name: used[name] for name in own if used[name] != own[name]}
    if not other:
        return ""
    readable = "-".join(re.sub(r"[^A-Za-z0-9.,=+]+", "-", text) for text in other.values())
    return f"-{readable[:60]}-{digest(other)}"
