"""One experiment: a configuration in, a finished run folder out. It uses no console; a sweep's worker calls it, too.

    setup.py       the configuration -> everything that training needs, built and checked
    this file      that -> a folder, trained weights, their test results
    recorded.py    what the folder says of the setup, and of the code behind it
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace

import torch

from fewshot import config as configs
from fewshot import model as models
from fewshot.config import TrainConfig
from fewshot.core import compute, trust
from fewshot.core.crew import ALONE, Crew
from fewshot.core.errors import UserError
from fewshot.data.watch import Watch
from fewshot.evaluation.classification import classify, classify_run
from fewshot.evaluation.score import embed_for, score_run
from fewshot.experiment import recorded
from fewshot.experiment.setup import Setup, model_of, plan, prepare, warnings_of
from fewshot.learning import loop, optimizer, resuming
from fewshot.learning.reporter import QUIET, SILENT, Reporter
from fewshot.learning.resuming import Begun
from fewshot.model import Model
from fewshot.runs import Run

__all__ = ["Setup", "prepare", "run"]


def run(
    config: TrainConfig, out: str | os.PathLike | None = None, reporter: Reporter = QUIET, *, resume: bool = False,
    elsewhere: bool = False, crew: Crew = ALONE,
) -> Run:  # fmt: skip
    """Train, select on validation, evaluate on test; returns the finished run folder.

    config: complete, as `fewshot.configure` makes it.
    out: the folder to make; without it, a new one under runs/ whose name says what the run is.
    reporter: is told how it goes; by default only warnings are passed on, as Python warnings.
    resume: continue the run that `out` holds, to the same bits as if it had not been interrupted. If there is none,
        begin one; if it is finished, return it. `config` may have another device, threads, data root and time between
        checkpoints than the run began with (`identity.HOW`).
    elsewhere: continue with this machine's own precision and number of threads, and with this number of processes, if
        the run was last trained with others: it is then not the run that it would have been, and records it.
    crew: the processes that train it together; each of them calls this (core/crew.py). Only the first one writes, and
        only it needs the folder.

    Raises UserError for what the user can mend: an `out` that exists, or that holds another configuration; components
    that do not fit; too few images for the tasks; a machine that cannot continue as the run began. Raises
    KeyboardInterrupt on SIGINT, SIGTERM or SIGHUP, once the checkpoint is saved.
    """
    if config.dataset == "auto":
        raise UserError("this configuration names no data set: complete it by fewshot.configure(...)")
    if not crew.first:
        reporter = SILENT
    begun = crew.tell(lambda: resuming.find(config, out, resume, elsewhere))
    if begun is not None and begun.finished:
        if crew.first:
            begun.run.tidy()
            if changed := begun.run.changed_code:
                reporter.say(
                    f"Warning: {changed} has changed since {begun.run.folder} was trained, and its results are from"
                    " the old code; to train with the new code, give another --out."
                )
        return begun.run
    setup = prepare(config, replace(begun, sitting=None) if begun and elsewhere else begun, crew)
    for warning in warnings_of(config, setup):
        reporter.say(f"Warning: {warning}.")
    folder = begun.run if begun else crew.tell(lambda: _new(config, out, setup))
    with folder.lock() if crew.first else nullcontext():
        if crew.first:
            _take_up(config, folder, begun, setup, reporter)
        try:
            train_and_test(config, folder, setup, reporter)
        except KeyboardInterrupt as interrupt:
            if str(interrupt):
                raise
            # During the test, or by a second Ctrl-C: the loop has not said how to continue.
            raise KeyboardInterrupt(f"interrupted; go on with --out {folder.folder} --resume") from None
    return folder


def _new(config: TrainConfig, out: str | os.PathLike | None, setup: Setup) -> Run:
    """A new run folder."""
    code = recorded.code_files(setup)
    return Run.create(config, out, recorded.settled(config, setup) | {"code": recorded.digests(code)}, code["users"])


def _take_up(config: TrainConfig, folder: Run, begun: Begun | None, setup: Setup, reporter: Reporter) -> None:
    """What comes before the first step, or the first one after a break. The folder is locked."""
    trust.remember(configs.users_modules(configs.to_json(config)))
    if begun:
        resuming.check(folder, setup.compute, setup.dataset, recorded.digests(recorded.code_files(setup)), reporter)
    reporter.say(recorded.in_a_line(config, setup) + f"\nRun folder: {folder.folder}")
    folder.note_sitting(
        compute.describe(setup.compute.device), setup.compute.precision, torch.get_num_threads(),
        setup.compute.crew.size,
    )  # fmt: skip


def train_and_test(config: TrainConfig, folder: Run, setup: Setup, reporter: Reporter) -> None:
    """Train to the end, from the folder's checkpoint if there is one; score the best weights. The folder is locked."""
    device, crew, data = setup.compute.device, setup.compute.crew, setup.dataset
    with compute.room_for(setup.regime.smaller):
        model = setup.model.to(device)
        steps = optimizer.build(config.optimizer, model.parameters(), config.lr, config.momentum, config.weight_decay)
        intact, its_plan = Watch(data).check, plan(config, setup.regime)
        with compute.trusting_pools(model.backbone.windows_meet) if config.deterministic else nullcontext():
            progress = loop.train(folder, model, setup.regime, steps, its_plan, reporter, intact, crew)
    seconds = round(progress.train_seconds, 1)  # as it is kept, so that `watch` says the same
    if crew.first:
        folder.note_trained(seconds, progress.best_step, progress.best_sha256)
    reporter.trained(seconds, progress.best_accuracy, progress.best_step)
    weights = crew.tell(folder.weights) if crew.several else b""
    with compute.room_for(compute.more_room(device)):
        if crew.first:
            _test(folder, models.load_own(folder, setup.compute), setup)
        else:
            best = models.with_weights(model_of(config, data, setup.regime, fresh=False), weights, setup.compute)
            _help_to_test(best, setup)


def _test(folder: Run, best: Model, setup: Setup) -> None:
    """Score the best weights, and write the results."""
    data = setup.dataset
    if setup.test:
        score_run(folder, best, data, setup.test, setup.compute, training=data, tested=True)
    else:
        classify_run(folder, best, data, "test", setup.compute, training=data, tested=True)


def _help_to_test(best: Model, setup: Setup) -> None:
    """What the other processes do meanwhile: they embed their share of the images."""
    data = setup.dataset
    if setup.test:
        split, base = setup.test[0].sampler.split, data.splits.get("train")
        embed_for(best.head, best.transform, best, split, setup.compute, base, fold=True)
    else:
        classify(best, data["test"], setup.compute, fold=True)
