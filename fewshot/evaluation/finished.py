"""Evaluate any number of finished runs: all are checked before the first is scored, and one is loaded at a time.

Request, a folder -> Plan (`check`) -> rows in result.json (`carry_out`)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fewshot import transforms
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data import Dataset, open_dataset
from fewshot.episodes import Tasks, frozen
from fewshot.evaluation.classification import classify_run
from fewshot.evaluation.score import score_run
from fewshot.evaluation.solve import wants_base
from fewshot.model import Model, load_run
from fewshot.runs import Run


@dataclass(frozen=True)
class Request:
    """What is asked of every run.

    dataset: "auto": the one that each run was trained on. data_root: of prepared data sets; None: $FEWSHOT_DATA, else
        the one that each run was trained with.
    tasks: the tasks to solve on a data set. only_tasks: solve them even if a run's classifier could name the images.
    head, transform: as written, instead of each run's own.
    where: its `precision` is what was asked for, or with `own_precision` what this machine would choose: then each run
        is evaluated in what it was trained in, if that is native here.
    replace: see `score_run`. trust: see `load_run`.
    """

    dataset: str
    data_root: str | None
    split: str
    tasks: Callable[[Dataset], list[Tasks]]
    only_tasks: bool
    head: str | None
    transform: str | None
    where: Compute
    own_precision: bool
    replace: bool
    trust: Sequence[str]

    @cached_property
    def _opened(self) -> dict[tuple[str, str], tuple[Dataset, list[Tasks]]]:
        return {}

    def open(self, name: str, root: str) -> Dataset:
        """A data set, opened once for all runs: each array of it is an open file."""
        if (name, root) not in self._opened:
            self._opened[name, root] = open_dataset(name, root), []
        return self._opened[name, root][0]

    def tasks_of(self, name: str, root: str) -> list[Tasks]:
        """The tasks that are asked for on a data set, drawn and verified once for all runs."""
        dataset, tasks = self.open(name, root), self._opened[name, root][1]
        tasks += [] if tasks else self.tasks(dataset)
        return tasks


@dataclass(frozen=True)
class Plan:
    """What is to be done with a run.

    wanted: empty if its classifier is to name the images. training: the images that it was trained on, if they are at
    hand. base: the data set on whose training split head and transform are fitted, if they are. notes: what the user
    should know before.
    """

    run: Run
    dataset: Dataset
    wanted: list[Tasks]
    training: Dataset | None
    base: Dataset | None
    where: Compute
    notes: list[str]


def check(request: Request, folder: str) -> Plan:
    """What is to be done with the run in `folder`. Raises UserError for whatever would prevent it.

    Its model is built and released: a thousand of them must not be held at once.
    """
    run = Run.open(folder)
    with run.lock():
        if not run.trained:
            raise UserError(f"{folder} has not finished training: go on with it by --out {folder} --resume first")
        run.rows, run.classification  # noqa: B018  what is there already must be ours
        run.check_code(request.trust, dataset=request.dataset == "auto")
        where = _where(request, run)
        model = load_run(run, where, request.trust)
    root = request.data_root or os.environ.get("FEWSHOT_DATA") or run.config.data_root
    name = run.config.dataset if request.dataset == "auto" else request.dataset
    dataset, size = request.open(name, root), model.backbone.image_size
    if dataset.image_size != size:
        raise UserError(
            f"{folder} was trained on {size} px images, and {dataset.name} has {dataset.image_size} px; prepare it at"
            " that size"
        )
    own, why_not = _own_data(request, run, dataset, root)
    training = own if own and own.is_known_as(run.resolved.get("fingerprint")) else None
    notes, base, wanted = _about_precision(request, run, where) + _about_code(run), None, []
    if request.only_tasks or not _classifies(folder, model, training, dataset, request.split):
        wanted = request.tasks_of(name, root)
        solver = model.head if request.head is None else model.head_for(request.head)
        mapped = model.transform if request.transform is None else transforms.build(request.transform)
        for each in wanted:
            solver.check_ways(each.protocol.ways)
        if wants_base(solver, mapped):
            base = _base(run, own, why_not, size)
        notes += _about_images(run, dataset, wanted, training, base)
    return Plan(run, dataset, wanted, training, base, where, notes)


def carry_out(request: Request, plan: Plan) -> list[dict[str, Any]]:
    """Score the run, and keep the rows in its folder; returns them. Raises UserError if another process works in it."""
    run, where = plan.run, plan.where
    with run.lock():
        model = load_run(run, where, request.trust)
        if not plan.wanted:
            return [classify_run(run, model, plan.dataset, request.split, where, request.replace, plan.training)]
        return score_run(
            run, model, plan.dataset, plan.wanted, where, request.head, request.transform, request.replace,
            plan.training, base=plan.base,
        )  # fmt: skip


def _where(request: Request, run: Run) -> Compute:
    native = ("fp32", request.where.precision)
    if request.own_precision and run.precision in native:
        return dataclasses.replace(request.where, precision=run.precision)
    return request.where


def _about_precision(request: Request, run: Run, where: Compute) -> list[str]:
    if run.precision in ("", where.precision):
        return []
    why = f" ({run.precision} is not native here)" * request.own_precision
    return [f"Note: {run.folder} was trained in {run.precision} and is evaluated in {where.precision}{why}."]


def _about_code(run: Run) -> list[str]:
    if changed := run.changed_code:
        return [f"Warning: {changed} has changed since {run.folder} was trained: it is evaluated with the new code."]
    return []


def _own_data(request: Request, run: Run, dataset: Dataset, root: str) -> tuple[Dataset | None, str]:
    """The data set that the run was trained on, whichever copy of it is there; else None, and why."""
    if request.dataset == "auto" or dataset.is_known_as(run.resolved.get("fingerprint")):
        return dataset, ""
    try:
        run.check_code(request.trust, dataset=True)
        return request.open(run.config.dataset, root), ""
    except UserError as error:
        return None, str(error)


def _base(run: Run, own: Dataset | None, why_not: str, size: int) -> Dataset:
    """The data set with the base classes: those that the network was trained on (Wang et al., SimpleShot, 2019)."""
    if own is not None and own.image_size == size:
        _ = own["train"]  # must be there
        return own
    if own is not None:
        why_not = f"{own.name} has images of {own.image_size} px there, and the network takes {size} px"
    raise UserError(
        f"the head or transform is fitted on the classes that {run.folder} was trained on, those of"
        f" {run.config.dataset}, which cannot be used ({why_not}); put both data sets under one --data-root, or give a"
        " --head and --transform that are not fitted, such as proto and none"
    )


def _about_images(
    run: Run, dataset: Dataset, wanted: list[Tasks], training: Dataset | None, base: Dataset | None
) -> list[str]:
    notes = []
    if warning := frozen.pixel_warning(dataset, wanted):
        notes.append(f"Warning: {warning}.")
    if training is None:
        notes.append(
            f"Note: the images that {run.folder} was trained on are not at hand; whether {dataset.name} has some of"
            " them is not known."
        )
    if base is not None and base.fingerprint != dataset.fingerprint:
        copy = "" if base is training else "another copy of "
        notes.append(f"Note: the base classes are those of {copy}{base.name}, which {run.folder} was trained on.")
    return notes


def _classifies(folder: str, model: Model, training: Dataset | None, dataset: Dataset, split: str) -> bool:
    """Whether the run's classifier can name the images of the split, and that is what the data set is for.

    Raises UserError if that is not known because the images of its training are not at hand.
    """
    if model.classifier is None or not dataset.shared_classes:
        return False
    if training is None:
        raise UserError(
            f"the images that {folder} was trained on are not at hand, so whether its classifier knows these classes is"
            " not known: give their --data-root; or --shots 1 5, for few-shot tasks"
        )
    return training["train"].classes == dataset[split].classes
