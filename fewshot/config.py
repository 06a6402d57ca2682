"""The whole configuration of a run: one dataclass, its flags, its JSON. Nothing here imports torch."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fewshot.core import typed
from fewshot.core.components import parse
from fewshot.core.errors import UserError, unknown
from fewshot.core.pace import Pace

MOST_EPISODES = 10_000_000  # in one evaluation: a record of that many can still be read whole


def option(default: Any, text: str) -> Any:
    """A field with its one-line explanation, which `--help` prints."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of a training run. `config.json` holds a complete one."""

    dataset: str = option("auto", "data set; auto: mini-imagenet if it is prepared, else the embedded glyphs")
    data_root: str = option("data", "folder of prepared data sets (default: $FEWSHOT_DATA, else data)")
    recipe: str = option("auto", "named set of values; auto: the one with the data set's name, if there is one")

    regime: str = option("episodic", "how to train")
    backbone: str = option("conv4", "embedding network")
    head: str = option("proto", "what solves an episode from embeddings")
    reg: str = option(
        "none", "regularizers: name[@sites][:key=value,...], joined by +, where `original` is the backbone's own"
    )
    transform: str = option("none", "of embeddings, before the head: name[:key=value,...], joined by +")
    init: str = option("", "start from the best weights of this run's backbone")

    ways: int = option(5, "classes in a training episode")
    shots: int = option(1, "support images a class in training")
    queries: int = option(6, "query images a class in training")

    epochs: int = option(80, "epochs; 0: score the untrained network")
    episodes_per_epoch: int = option(1000, "training episodes in an epoch")
    episodes_per_batch: int = option(8, "episodes in one optimizer step")
    embed: Literal["joint", "separate"] = option(
        "joint", "support and query in one forward pass (one set of batch-norm statistics), or in one each"
    )

    optimizer: Literal["sgd", "adamw"] = option("sgd", "SGD with Nesterov momentum, or AdamW; torch's own")
    lr: float = option(0.1, "initial learning rate")
    momentum: float = option(0.9, "momentum of SGD; AdamW has its own betas")
    weight_decay: float = option(5e-4, "L2 penalty (AdamW: decoupled), also on the head's parameters")
    clip_norm: float = option(0.0, "scale a gradient of a larger norm down to this one; 0: do not")
    ema: float = option(0.0, "decay of a moving average of the weights, which is then validated and kept; 0: none")
    schedule: Literal["cosine", "steps", "constant"] = option("cosine", "how the learning rate falls")
    warmup_epochs: int = option(0, "first epochs, in which the learning rate rises linearly to the schedule's")
    lr_epochs: tuple[int, ...] = option((), "schedule steps: epochs at which the rate changes")
    lr_values: tuple[float, ...] = option((), "schedule steps: the rate from each of these epochs on")

    crop_padding: int = option(8, "random crop: zero padding in pixels; 0: none")
    jitter: float = option(0.4, "random brightness, contrast and saturation: half-width around 1")
    mirror: bool = option(True, "random horizontal flip")

    test_ways: int = option(5, "classes in a validation or test episode")
    val_episodes: int = option(1000, "validation episodes, the same each time")
    val_every: int = option(1, "epochs between validations; there is always one after the last step")
    val_shots: int = option(0, "shots of the validation that selects the weights; 0: as in training")
    test_episodes: int = option(10_000, "test episodes for each number of shots")
    test_shots: tuple[int, ...] = option((1, 5), "shots of the test table")
    test_queries: int = option(15, "query images a class in validation and test")

    seed: int = option(0, "seed of initial weights, training episodes, augmentation and masks")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "of the network; auto: bf16 if the hardware has it")
    threads: int = option(0, "CPU threads; 0: torch's choice")
    compile: bool = option(False, "torch.compile the backbone: minutes before the first step, fewer passes over memory")
    sync_bn: bool = option(False, "with several processes on CUDA: batch norm over the whole batch, not each share")
    deterministic: bool = option(False, "on CUDA: kernels that repeat to the bit, a little slower; a CPU always does")
    checkpoint_seconds: float = option(60.0, "seconds between checkpoints")

    def __post_init__(self) -> None:
        if mistake := typed.wrong(vars(self), _TYPES):
            raise UserError(f"the configuration's {mistake}")
        for name, hint in _TYPES.items():  # 1 and 1.0 are one experiment
            if hint is float:
                object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "lr_values", tuple(map(float, self.lr_values)))
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{flag(name)} {getattr(self, name)}: give at least {least}")
        for name in ("val_episodes", "test_episodes"):
            if getattr(self, name) > MOST_EPISODES:
                raise UserError(f"{flag(name)} {getattr(self, name)}: give at most {MOST_EPISODES:,}")
        for name in ("lr", "checkpoint_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{flag(name)} {getattr(self, name)}: give a positive number")
        for name in ("weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{flag(name)} {getattr(self, name)}: give 0 or more")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema {self.ema}: give 0 for none, or less than 1, such as 0.999")
        for name in ("momentum", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{flag(name)} {getattr(self, name)}: give a number within 0..1")
        if not self.test_shots or min(self.test_shots) < 1:
            raise UserError(f"--test-shots {' '.join(map(str, self.test_shots))}: give numbers from 1 on")
        if len(self.lr_epochs) != len(self.lr_values):
            raise UserError(f"--lr-epochs has {len(self.lr_epochs)} numbers and --lr-values {len(self.lr_values)}")
        if list(self.lr_epochs) != sorted(set(self.lr_epochs)):
            raise UserError(f"--lr-epochs {' '.join(map(str, self.lr_epochs))}: give rising numbers")
        if not all(0 < value < float("inf") for value in self.lr_values):
            raise UserError(f"--lr-values {' '.join(map(str, self.lr_values))}: give positive numbers")
        if ".." in self.dataset or re.search(r"[/\\\x00-\x1f]", self.dataset):  # it is part of file names
            raise UserError(f"--dataset {self.dataset!r}: give a name, of letters, digits and . _ -, not a path")
        if self.schedule == "steps" and not self.lr_epochs:
            raise UserError("--schedule steps needs --lr-epochs and --lr-values")
        if self.sync_bn and self.ema:
            raise UserError("--sync-bn and --ema: torch cannot copy the network for the average; leave one of them out")
        if self.warmup_epochs > self.epochs:
            raise UserError(f"--warmup-epochs {self.warmup_epochs}: training has only {self.epochs}")

    @property
    def episodic_pace(self) -> Pace:
        """How long episodic training is. Another regime may count differently: `Regime.pace`."""
        return Pace(self.epochs, self.episodes_per_epoch, self.episodes_per_batch, self.val_every)


_AT_LEAST = {
    "ways": 2, "shots": 1, "queries": 1, "epochs": 0, "episodes_per_epoch": 1, "episodes_per_batch": 1, "seed": 0,
    "crop_padding": 0, "threads": 0, "warmup_epochs": 0, "test_ways": 2, "val_episodes": 2, "val_every": 1,
    "val_shots": 0, "test_episodes": 2, "test_queries": 1,
}  # fmt: skip
FIELDS = {f.name: f for f in fields(TrainConfig)}
_GROUPS = {
    "dataset": "data and recipe", "regime": "parts (python -m fewshot.describe NAME explains each)",
    "ways": "training tasks", "epochs": "training steps", "optimizer": "optimizer and learning rate",
    "crop_padding": "augmentation", "test_ways": "validation and test", "seed": "seed, machine and checkpoints",
}  # fmt: skip
"""The groups of options in `--help`, each by its first field."""
_TYPES = typing.get_type_hints(TrainConfig)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser, names: Mapping[str, Sequence[str]] | None = None) -> None:
    """One flag for each field; those not given are absent from the result, so that recipes can fill them.

    `names`: for each field, the names that its help lists.
    """
    group: argparse._ActionsContainer = parser
    for name, spec in FIELDS.items():
        if name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[name])
        default = spec.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        known = f": {', '.join(names[name])}" if names and name in names else ""
        note = known + ("" if "default" in spec.metadata["help"] or shown == "" else f" (default: {shown})")
        keywords: dict[str, Any] = {"help": spec.metadata["help"] + note, "default": argparse.SUPPRESS}
        hint = _TYPES[name]
        if hint is bool:
            keywords["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hint) is Literal:
            keywords["choices"] = typing.get_args(hint)
        elif typing.get_origin(hint) is tuple:
            keywords |= {"type": typing.get_args(hint)[0], "nargs": "+", "metavar": "N"}
        else:
            keywords |= {"type": hint, "metavar": name.upper() if hint is str else "N"}
        group.add_argument(flag(name), **keywords)


def users_modules(values: Mapping[str, Any]) -> list[str]:
    """The user's own modules, such as `my_pkg.drop`, that configuration values name in components and as a data set."""
    texts = [values[name] for name in ("regime", "backbone", "head", "reg", "transform") if name in values]
    names = [spec.name for text in texts for spec in parse(text)] + [values.get("dataset", "")]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name))


def to_json(config: TrainConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values from JSON, TOML or flags in the fields' types: lists become tuples.

    Raises UserError for an unknown field or a wrong type.
    """
    for name in values:
        if name not in FIELDS:
            raise unknown(f"field in {where}:", name, FIELDS)
    values = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
    if mistake := typed.wrong(values, _TYPES):
        raise UserError(f"{where}: {mistake}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
