"""Score a model on tasks of a split; write the rows into its run folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fewshot import runs, transforms
from fewshot.core import sources
from fewshot.core.compute import Compute, describe
from fewshot.data import Dataset, Split
from fewshot.episodes import DisjointSampler, Tasks, frozen
from fewshot.evaluation import folding
from fewshot.evaluation.embed import Base, embed_base, embed_split
from fewshot.evaluation.overlap import seen, trained_splits
from fewshot.evaluation.record_files import forget
from fewshot.evaluation.records import Outcomes, Record, keep
from fewshot.evaluation.solve import accuracies, solve_episodes, wants_base
from fewshot.evaluation.statistics import CI_METHOD, at_chance, summarise
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
    classes, for those that are fitted on them. `fold`: embed by a copy with its batch norms folded, which is faster and
    equal up to rounding; a validation that selects weights does not fold. Raises UserError if `base` is needed and not
    given, or if what comes out is not finite.
    """
    head = (head or model.head).to(compute.device)
    transform = (transform or model.transform).to(compute.device)
    for tasks in wanted:
        head.check_ways(tasks.protocol.ways)
    head.eval()
    transform.eval()
    embeddings, fitted_on = embed_for(head, transform, model, wanted[0].sampler.split, compute, base, fold)
    return solve_episodes(head, embeddings, wanted, transform, fitted_on)


def embed_for(
    head: Head,
    transform: Transform,
    model: Model,
    split: Split,
    compute: Compute,
    base: Split | None = None,
    fold: bool = False,
) -> tuple[Tensor, Base | None]:
    """What `score` solves tasks from: the embeddings (I, D) of a split, and those of the base classes if the head or
    the transform is fitted on them. If there are several processes, each calls this and embeds its share.
    """
    model.eval()
    network, at_once = folding.in_use(model, compute, fold)
    fitted_on = embed_base(network, base, compute, at_once) if base and wants_base(head, transform) else None
    return embed_split(network, split, compute, at_once), fitted_on


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
    base: Dataset | None = None,
) -> list[dict[str, Any]]:
    """Score on one split's tasks; keep rows and every episode's outcome in the run folder, whose lock is held.

    `dataset` has images of the model's size. `head` and `transform`: instead of the run's own, as written.
    `replace`: replace earlier results of the same protocols on any tasks and pixels; else only those on the same ones.
    `training`: the data set that the run was trained on, if it is at hand: rows say what was seen in it.
    `tested`: whether this is the test that the run's configuration asks for.
    `base`: the data set on whose training split head and transform are fitted, if they are; by default `training`.
    """
    split = wanted[0].sampler.split
    solver = model.head if head is None else model.head_for(head)
    mapped = model.transform if transform is None else transforms.build(transform)
    tasks = [*wanted, *disjoint_tasks(wanted)]
    fitted_on = (base or training) if wants_base(solver, mapped) else None
    base_classes = None if fitted_on is None else fitted_on["train"]
    records = make_records(tasks, score(model, tasks, compute, base_classes, solver, mapped, fold=True))
    config = run.config
    shared: dict[str, Any] = {
        "head": head or config.head, "transform": transform or config.transform, "setting": solver.setting,
        "dataset": dataset.name, **dataset.fingerprints,
    }  # fmt: skip
    if fitted_on is not None:
        shared["base"] = {"dataset": fitted_on.name, **fitted_on.fingerprints}
    if theirs := users_code(solver, mapped):
        shared["solver_code"] = theirs
    if training is not None and (overlap := seen(training, dataset, split.name, trained_splits(run))):
        shared["seen_in_training"] = overlap
    other = _other_solver(shared, {"head": config.head, "transform": config.transform})
    shared["evaluated_by"] = evaluated_by(compute)
    return add_rows(run, wanted, records, shared, other, replace, tested)


def disjoint_tasks(wanted: Sequence[Tasks]) -> list[Tasks]:
    """For each of `wanted`, the tasks of its protocol that share no image."""
    samplers = [DisjointSampler(each.sampler.split, each.protocol, each.sampler.seed) for each in wanted]
    return [Tasks(sampler, len(sampler)) for sampler in samplers]


def make_records(tasks: Sequence[Tasks], scored: Sequence[np.ndarray]) -> list[Record]:
    """The records of solved tasks. `tasks`: the wanted ones, then, in the same order, those of `disjoint_tasks`."""
    outcomes = [_outcomes(*each) for each in zip(tasks, scored, strict=True)]
    wanted = len(tasks) // 2
    return [Record(*each) for each in zip(outcomes[:wanted], outcomes[wanted:], strict=True)]


def evaluated_by(compute: Compute) -> dict[str, Any]:
    """The versions and the machine behind a result. This asks git, so call it once for all rows."""
    environment = runs.environment()
    by = {key: environment[key] for key in ("commit", "versions")}
    return by | {"device": describe(compute.device), "precision": compute.precision}


def add_rows(
    run: Run,
    wanted: Sequence[Tasks],
    records: Sequence[Record],
    shared: dict[str, Any],
    other: str = "",
    replace: bool = False,
    tested: bool = False,
) -> list[dict[str, Any]]:
    """Write records and their rows into the run folder; returns the rows.

    `shared`: what every row says, including the name of the data set. `other`: what file names say of a solver that is
    not the run's own. `replace`, `tested`: as in `score_run`.
    """
    rows = [_row(tasks, record) | shared for tasks, record in zip(wanted, records, strict=True)]
    before = run.rows
    for row, tasks, record in zip(rows, wanted, records, strict=True):
        row |= keep(run, _name(row["dataset"], tasks) + other, record)
    run.write_result(rows, replace, tested)
    forget(run, before)
    return rows


def users_code(head: object, transform: Transform) -> str:
    """Short digest of the user's own modules that solve: "" if head and transform are ours."""
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
    guessed = at_chance(summary.accuracy, summary.ci95, protocol.ways)
    return row | ({"at_chance": True} if guessed else {})


def _name(dataset: str, tasks: Tasks) -> str:
    return frozen.task_name(dataset, tasks.sampler.split.name, tasks.protocol, tasks.sampler.seed)


def _other_solver(used: dict[str, Any], own: dict[str, str]) -> str:
    """What a record's file name says of a head or transform that is not the run's own: readable and unambiguous."""
    other = {name: used[name] for name in own if used[name] != own[name]}
    if not other:
        return ""
    readable = "-".join(re.sub(r"[^A-Za-z0-9.,=+]+", "-", text) for text in other.values())
    return f"-{readable[:60]}-{digest(other)}"
