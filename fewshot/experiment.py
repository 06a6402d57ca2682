"""One experiment: a configuration in, a finished run folder out. No console in it; a sweep's worker calls it, too."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewshot import config as configs
from fewshot import heads
from fewshot import model as models
from fewshot.backbones import sync_batch_norm
from fewshot.config import TrainConfig
from fewshot.core import compute, sources, trust
from fewshot.core.compute import Compute
from fewshot.core.crew import ALONE, Crew
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.data import Dataset, open_dataset
from fewshot.data.watch import Watch
from fewshot.episodes import Protocol, Tasks, frozen
from fewshot.evaluation import overlap
from fewshot.evaluation.classification import classify, classify_run
from fewshot.evaluation.score import embed_for, score_run
from fewshot.learning import loop, optimizer, regimes, resuming
from fewshot.learning.loop import Plan
from fewshot.learning.regimes import Regime
from fewshot.learning.reporter import SILENT, Reporter
from fewshot.learning.resuming import Begun
from fewshot.learning.schedule import Schedule
from fewshot.model import Model
from fewshot.runs import Run
from fewshot.transforms import Transform

# Ours that every training runs through, validations too, which choose its weights; its components' files come besides.
TRAINING_CODE = (
    "model.py", "core/compute.py", "core/crew.py", "core/pace.py", "core/seeding.py", "data/augment.py",
    "data/image_files.py", "data/images.py", "data/joined.py", "episodes/sampler.py", "evaluation/classification.py",
    "evaluation/embed.py", "evaluation/score.py", "evaluation/solve.py", "learning/keeper.py", "learning/loop.py",
    "learning/optimizer.py", "learning/schedule.py", "backbones/_base.py", "heads/_base.py",
    "regularizers/__init__.py", "regularizers/_base.py", "learning/regimes/_base.py",
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """Everything that a training needs, built and checked before a folder is made."""

    compute: Compute
    dataset: Dataset
    validation: list[Tasks]
    """The first decide which weights are best. None where images decide."""
    test: list[Tasks]
    """None where the test is of images."""
    model: Model
    regime: Regime
    init: str = ""
    """SHA-256 of the weights of another run's with which training begins; "" where there are none, or it goes on."""


def run(
    config: TrainConfig, out: str | os.PathLike | None = None, reporter: Reporter = SILENT, *, resume: bool = False,
    elsewhere: bool = False, crew: Crew = ALONE,
) -> Run:  # fmt: skip
    """Train, select on validation, evaluate on test; the finished run folder.

    config: complete, as `fewshot.configure` makes it.
    out: the folder to make; without it, a new one under runs/ that says what the run is.
    resume: go on with the run that `out` holds, to the same bits as if it had not been cut; where there is none, begin;
        where it is finished, return it as it is. `config` may have another device, threads and time between
        checkpoints than the run began with (`identity.HOW`).
    elsewhere: go on in this machine's own precision and number of threads, and in this number of processes, where the
        run was last trained in others: it is then not the run that it would have been, and says so.
    crew: the processes that train it together, each of which calls this (core/crew.py). The first one alone writes, and
        only it needs the folder.

    Raises UserError for what the user can mend: an `out` that exists, or that holds another configuration; components
    that do not fit; images too few for the tasks; a machine that cannot go on as the run began. Raises
    KeyboardInterrupt at SIGINT, SIGTERM or SIGHUP, once the checkpoint is saved.
    """
    if config.dataset == "auto":
        raise UserError("this configuration names no data set: complete it by fewshot.configure(...)")
    if not crew.first:
        reporter = SILENT
    begun = crew.tell(lambda: resuming.find(config, out, resume, elsewhere))
    if begun is not None and begun.finished:
        if crew.first:
            begun.run.tidy()
        return begun.run
    setup = prepare(config, replace(begun, sitting=None) if begun and elsewhere else begun, crew)
    if warning := frozen.pixel_warning(setup.dataset, setup.test):
        reporter.say(f"Warning: {warning}.")
    if config.epochs and (warning := setup.regime.warning(setup.model)):
        reporter.say(f"Warning: {warning}.")
    idle = [name for name in setup.regime.unused if getattr(config, name) != configs.FIELDS[name].default]
    if idle:
        flags = ", ".join(map(configs.flag, idle))
        reporter.say(f"Warning: {flags}: no effect with --regime {config.regime}.")
    if setup.test and (shared := overlap.seen(setup.dataset, setup.dataset, "test")):
        words = overlap.in_words(shared)
        reporter.say(f"Warning: training sees {words} of the test split: these are no few-shot results.")
    folder = begun.run if begun else crew.tell(lambda: _new(config, out, setup))
    with folder.lock() if crew.first else nullcontext():
        if crew.first:
            _take_up(config, folder, begun, setup, reporter)
        train_and_test(config, folder, setup, reporter)
    return folder


def prepare(config: TrainConfig, begun: Begun | None = None, crew: Crew = ALONE) -> Setup:
    """Build and check everything. UserError for whatever would fail later: an hour's training must not end in it.

    `begun`: the run that goes on. What `auto` came to for it, it comes to again: device, precision, threads. UserError
    where that cannot be had here. Unless it has a checkpoint, training begins, with the weights that the backbone's
    options name.
    """
    where, threads = resuming.where(config, begun, crew)
    crew.check_alike({"the kind of device": where.device.type, "the precision": where.precision})
    if config.sync_bn and where.device.type != "cuda":
        raise UserError("--sync-bn is for CUDA devices: leave it out; batch norm is then over each process's own share")
    if config.sync_bn and not crew.several and begun is None:  # who goes on with what several began has the whole batch
        raise UserError("--sync-bn is for several processes, and there is one: leave it out, or give --processes")
    compute.settle(where, threads, config.deterministic)
    if config.compile:
        compute.check_compiler()
    dataset = open_dataset(config.dataset, config.data_root)
    crew.check_alike({"images of the fingerprint": dataset.fingerprint})

    def tasks(split: str, shots: Iterable[int], episodes: int) -> list[Tasks]:
        protocols = [Protocol(config.test_ways, n, config.test_queries) for n in dict.fromkeys(shots)]
        return [frozen.standard_tasks(dataset, split, protocol, episodes) for protocol in protocols]

    validation, test = [], []
    if not regimes.classifies(config.regime, dataset):
        validation = tasks("val", (config.val_shots or config.shots, *config.test_shots), config.val_episodes)
        test = tasks("test", config.test_shots, config.test_episodes)
    regime = regimes.build(config.regime, config, dataset, validation, where)
    fresh = begun is None or begun.fresh
    model = _model(config, dataset, regime, fresh)
    for each in (*validation, *test):
        model.head.check_ways(each.protocol.ways)
    if config.epochs:
        regime.check(model)
        form = (model.backbone.features, model.backbone.map_shape, config.ways, config.shots, config.queries)
        heads.check_declared(config.head, *form, training=True)
    elif test:
        heads.check_untrained(model.head)
    if crew.several:
        _check_shared(config, regime, crew)
    init = _begin_with(config.init, model, begun) if config.init and fresh and crew.first else ""
    if config.sync_bn and crew.several:
        sync_batch_norm(model, crew.devices)
    return Setup(where, dataset, validation, test, model, regime, init)


def _begin_with(init: str, model: Model, begun: Begun | None) -> str:
    """Give the model the weights of the run `init`; their digest. UserError where they are not those of the run that
    goes on."""
    found = models.begin_with(model, Run.open(init))
    if begun is not None and begun.run.resolved.get("init", {}).get("weights", found) != found:
        raise UserError(
            f"--init {init}: it has other weights now than when {begun.run.folder} began; bring them back, or give"
            " another --out"
        )
    return found


def _model(config: TrainConfig, dataset: Dataset, regime: Regime, fresh: bool) -> Model:
    return models.build(
        config.backbone, config.reg, config.head, dataset.image_size, dataset.mean, dataset.std, config.seed,
        config.transform, regime.classifier, fresh,
    )  # fmt: skip


def _check_shared(config: TrainConfig, regime: Regime, crew: Crew) -> None:
    """UserError where several processes cannot share the work of a step."""
    items = regime.pace(config).per_step
    if not regime.shared:
        raise UserError(f"--regime {config.regime} trains in one process: it does not say that it is `shared`")
    if items < crew.size:
        raise UserError(
            f"a step has {items} items (episodes, or images) to share, and there are {crew.size} processes: start at"
            f" most {items}, or make the batch larger"
        )


def _new(config: TrainConfig, out: str | os.PathLike | None, setup: Setup) -> Run:
    """A new run folder."""
    code = code_files(setup)
    return Run.create(config, out, resolved(config, setup) | {"code": digests(code)}, code["users"])


def _take_up(config: TrainConfig, folder: Run, begun: Begun | None, setup: Setup, reporter: Reporter) -> None:
    """What comes before the first step, or the first one after a break. The folder is locked."""
    trust.remember(configs.users_modules(configs.to_json(config)))
    if begun:
        resuming.check(folder, setup.compute, setup.dataset, digests(code_files(setup)), reporter)
    reporter.say(describe(config, setup) + f"\nRun folder: {folder.folder}")
    folder.note_sitting(
        compute.describe(setup.compute.device), setup.compute.precision, torch.get_num_threads(),
        setup.compute.crew.size,
    )  # fmt: skip


def train_and_test(config: TrainConfig, folder: Run, setup: Setup, reporter: Reporter) -> None:
    """Train to the end, from the folder's checkpoint if there is one; score the best weights. The folder is locked."""
    device, crew, data = setup.compute.device, setup.compute.crew, setup.dataset
    with compute.room_for("fewer --episodes-per-batch, --shots or --queries"):
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
    with compute.room_for("--device cpu"):
        if crew.first:
            _test(folder, models.load_own(folder, setup.compute), setup)
        else:
            best = models.with_weights(_model(config, data, setup.regime, fresh=False), weights, setup.compute)
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


def plan(config: TrainConfig, regime: Regime) -> Plan:
    """What the loop needs to know."""
    pace = regime.pace(config)
    return Plan(
        config.seed, schedule(config, pace), config.weight_decay, pace, config.checkpoint_seconds, config.clip_norm,
        config.ema, config.compile,
    )  # fmt: skip


def schedule(config: TrainConfig, pace: Pace) -> Schedule:
    """The learning rates: epochs become the steps in which they have passed."""
    return Schedule(
        config.schedule, config.lr, pace.steps, tuple(map(pace.first_step, config.lr_epochs)), config.lr_values,
        pace.first_step(config.warmup_epochs),
    )  # fmt: skip


def resolved(config: TrainConfig, setup: Setup) -> dict[str, Any]:
    """What is settled when a run begins, besides the configuration: kept in its config.json."""
    model, dataset = setup.model, setup.dataset
    mean, std = model.backbone.normalisation or (dataset.mean, dataset.std)
    facts = {
        **dataset.fingerprints, "image_size": dataset.image_size, "mean": mean, "std": std,
        "parameters": model.parameter_count, "features": model.backbone.features,
        "steps": setup.regime.pace(config).steps,
        "regularizers": [
            f"site {reg.site.label}: {reg}" + f" ({reg.remark})" * bool(reg.remark)
            for reg in model.backbone.regularizers
        ],
    }  # fmt: skip
    if setup.regime.splits != ("train",):
        facts["trained_splits"] = list(setup.regime.splits)
    facts |= model.backbone.facts
    if setup.regime.classifier:
        facts["classifier"] = dataclasses.asdict(setup.regime.classifier)
    if setup.init:
        facts["init"] = {"run": config.init, "weights": setup.init}
    return facts


def component_modules(setup: Setup) -> list[str]:
    """The Python modules that the run's components come from."""
    model = setup.model
    mapped = [each for each in model.transform.modules() if isinstance(each, Transform)]
    components = [model.backbone, model.head, *model.backbone.regularizers, *mapped, setup.regime]
    components += [*([model.classifier] if model.classifier else []), *setup.regime.parts]
    return list(dict.fromkeys(type(each).__module__ for each in components))


def code_files(setup: Setup) -> dict[str, dict[str, Path]]:
    """The source files that train a run, by their names: {"ours": {name: path}, "users": {name: path}}."""
    modules = component_modules(setup)
    ours = {path.relative_to(sources.PACKAGE).as_posix(): path for path in sources.ours(TRAINING_CODE, modules)}
    return {"ours": ours, "users": sources.users(modules)}


def digests(code: dict[str, dict[str, Path]]) -> dict[str, dict[str, str]]:
    """The same with each file's digest in place of its path: what a run keeps as `resolved.code`."""
    return {
        whose: {name: sources.digest(path) for name, path in sorted(files.items())} for whose, files in code.items()
    }


def describe(config: TrainConfig, setup: Setup) -> str:
    """What will be trained, in a line."""
    classifier = setup.model.classifier
    solver = f"{config.head} head" if setup.test or classifier is None else f"{classifier.kind} classifier"
    return (
        f"{config.backbone} ({setup.model.parameter_count:,} parameters), {solver}, regularizer {config.reg};"
        f" recipe {config.recipe}: {setup.regime.pace(config).steps:,} steps of {setup.regime.what};"
        f" {setup.compute.device}, {setup.compute.precision}"
        + (f", {crew.size} processes." if (crew := setup.compute.crew).several else ".")
    )
