"""The configuration -> everything that training needs, built and checked before a folder is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fewshot import config as configs
from fewshot import heads, recipes, regularizers
from fewshot import model as models
from fewshot.backbones import sync_batch_norm
from fewshot.config import TrainConfig
from fewshot.core import compute
from fewshot.core.compute import Compute
from fewshot.core.crew import ALONE, Crew
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.data import Dataset, open_dataset
from fewshot.episodes import Protocol, Tasks, frozen
from fewshot.evaluation import overlap
from fewshot.learning import regimes, resuming
from fewshot.learning.loop import Plan
from fewshot.learning.regimes import Regime
from fewshot.learning.resuming import Begun
from fewshot.learning.schedule import Schedule
from fewshot.model import Model
from fewshot.runs import Run


@dataclass(frozen=True)
class Setup:
    """Everything that training needs, built and checked: what `prepare` makes."""

    compute: Compute
    dataset: Dataset
    validation: list[Tasks]
    """The first ones decide which weights are best. Empty if images decide instead."""
    test: list[Tasks]
    """Empty if the test is on images instead."""
    model: Model
    regime: Regime
    init: str = ""
    """SHA-256 of another run's weights with which training begins; "" if there are none, or if training continues."""


def prepare(config: TrainConfig, begun: Begun | None = None, crew: Crew = ALONE) -> Setup:
    """Build and check everything. Raises UserError for whatever would fail later, after an hour's training.

    `begun`: the run that continues. `auto` is resolved as it was for that run: device, precision, threads. Raises
    UserError if that is not possible here. Unless the run has a checkpoint, training starts from the beginning, with
    the weights that the backbone's options name.
    """
    where, threads = resuming.where(config, begun, crew)
    crew.check_alike({"the kind of device": where.device.type, "the precision": where.precision})
    if config.sync_bn and where.device.type != "cuda":
        raise UserError("--sync-bn is for CUDA devices: leave it out; batch norm is then over each process's own share")
    if config.sync_bn and not crew.several and begun is None:  # one that continues a run of several has the whole batch
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
    model = model_of(config, dataset, regime, fresh)
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
    """Give the model the weights of the run `init`; returns their digest. Raises UserError if a run that continues
    began with other weights."""
    source = Run.open(init)
    if begun is None and not source.finished:
        raise UserError(f"--init {init}: this run is not finished; finish it first, by --out {init} --resume")
    found = models.begin_with(model, source)
    if begun is not None and begun.run.resolved.get("init", {}).get("weights", found) != found:
        raise UserError(
            f"--init {init}: it has other weights now than when {begun.run.folder} began; bring them back, or give"
            " another --out"
        )
    return found


def model_of(config: TrainConfig, dataset: Dataset, regime: Regime, fresh: bool) -> Model:
    """The model of a configuration. `fresh`: with the weights that the backbone's options name, if they name any."""
    return models.build(
        config.backbone, config.reg, config.head, dataset.image_size, dataset.mean, dataset.std, config.seed,
        config.transform, regime.classifier, fresh,
    )  # fmt: skip


def _check_shared(config: TrainConfig, regime: Regime, crew: Crew) -> None:
    """Raise UserError if several processes cannot share the work of a step."""
    items = regime.pace(config).per_step
    if not regime.shared:
        raise UserError(f"--regime {config.regime} trains in one process: it does not say that it is `shared`")
    if items < crew.size:
        raise UserError(
            f"a step has {items} items (episodes, or images) to share, and there are {crew.size} processes: start at"
            f" most {items}, or make the batch larger"
        )


def warnings_of(config: TrainConfig, setup: Setup) -> list[str]:
    """What the user should know before training begins, each without a full stop."""
    found = [frozen.pixel_warning(setup.dataset, setup.test)]
    if config.epochs:
        found.append(setup.regime.warning(setup.model))
        idle = regularizers.without_effect(setup.model.backbone.regularizers)
        found += [f"{name} has no effect: it left 20 random maps unchanged" for name in idle]
        for family, text in (
            (regularizers.FAMILY, config.reg), (heads.FAMILY, config.head), (regimes.FAMILY, config.regime)
        ):  # fmt: skip
            found += family.idle(text)
    recipe, fields = recipes.values_of(config), configs.FIELDS
    unasked = {name: (fields[name].default, recipe.get(name)) for name in setup.regime.unused}
    if idle := [name for name, usual in unasked.items() if getattr(config, name) not in usual]:
        found.append(f"{', '.join(map(configs.flag, idle))}: no effect with --regime {config.regime}")
    if setup.test and (shared := overlap.seen(setup.dataset, setup.dataset, "test")):
        words = overlap.in_words(shared)
        found.append(f"training sees {words} of the test split: these are no few-shot results")
    return [warning for warning in found if warning]


def plan(config: TrainConfig, regime: Regime) -> Plan:
    """What the loop needs to know."""
    pace = regime.pace(config)
    return Plan(
        config.seed, schedule(config, pace), config.weight_decay, pace, config.checkpoint_seconds, config.clip_norm,
        config.ema, config.compile,
    )  # fmt: skip


def schedule(config: TrainConfig, pace: Pace) -> Schedule:
    """The learning rates: an epoch becomes the first step after that many epochs."""
    return Schedule(
        config.schedule, config.lr, pace.steps, tuple(map(pace.first_step, config.lr_epochs)), config.lr_values,
        pace.first_step(config.warmup_epochs),
    )  # fmt: skip
