"""What a sweep varies, and the configurations that result. Imports no torch."""

from __future__ import annotations

import itertools
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot import catalogue
from fewshot import config as configs
from fewshot.config import FIELDS, TrainConfig
from fewshot.core import sources
from fewshot.core.components import parse
from fewshot.core.console import Parser
from fewshot.core.errors import UserError, unknown
from fewshot.core.toml import read_toml
from fewshot.defaults import complete
from fewshot.identity import digest, experiment

_NAMED = (*catalogue.FIELDS, "recipe", "dataset")  # fields whose values name themselves
_LONGEST = 120  # characters of a run's name


def parse_vary(text: str) -> tuple[str, list[Any]]:
    """`lr=0.1,0.05` as a field and its values; if a value has commas itself, `|` separates them.

    `reg=none|targetdrop:drop_prob=0.1,block_size=3`. Raises UserError for an unknown field, or values that it cannot
    have.
    """
    field, equals, values = text.partition("=")
    field = field.strip().replace("-", "_")
    if not equals or not values:
        raise UserError(f"--vary {text}: write FIELD=VALUE,VALUE, such as reg=none,targetdrop")
    if field not in FIELDS:
        raise unknown("field in --vary:", field, FIELDS)
    given = [value.strip() for value in values.split("|" if "|" in values else ",")]
    return field, _typed(field, given)


def read(path: Path) -> tuple[dict[str, Any], dict[str, list[Any]], int | None]:
    """A grid's file: the values that all runs share, those that vary, by field, and the number of seeds if given.

        dataset = "mini-imagenet-42"
        epochs = 24
        seeds = 3
        [vary]
        reg = ["none", "targetdrop", "dropblock"]

    Raises UserError if it is no such file.
    """
    try:
        written = read_toml(path, str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; give a TOML file, or --vary") from None
    except OSError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    vary, seeds = written.pop("vary", {}), written.pop("seeds", None)
    if not isinstance(vary, dict) or not all(isinstance(values, list) and values for values in vary.values()):
        raise UserError(f'{path}: write [vary], and below it lines such as reg = ["none", "targetdrop"]')
    if seeds is not None and (type(seeds) is not int or seeds < 1):
        raise UserError(f"{path}: seeds = {seeds!r}: give a number from 1 on")
    shared = configs.from_json(written, str(path))
    each = {field: [configs.from_json({field: value}, str(path))[field] for value in vary[field]] for field in vary}
    return shared, each, seeds


def points(flags: Mapping[str, Any], vary: Mapping[str, Sequence[Any]], seeds: int | None) -> dict[str, TrainConfig]:
    """Every configuration of the grid by its run's name: seed by seed, so that comparisons come before repeats.

    `seeds`: 0 .. seeds - 1, if the seed does not vary itself. Raises UserError if a value comes twice, or if two
    configurations would be the same training.
    """
    for field, values in vary.items():
        if field in flags:
            raise UserError(f"{configs.flag(field)} is given, and varies: leave one of the two out")
        if len(set(values)) < len(values):
            raise UserError(f"--vary {field}: a value comes twice in {', '.join(map(str, values))}")
    if "seed" in vary and seeds is not None:
        raise UserError("--seeds and --vary seed both say which seeds: leave one of the two out")
    for field in vary.keys() & catalogue.FIELDS.keys():
        for value in vary[field]:
            _check_names(field, value, " in --vary")
    fields = {"seed": vary.get("seed", range(seeds or 1))} | {name: vary[name] for name in vary if name != "seed"}
    if "seed" in flags:
        raise UserError(f"--seed {flags['seed']}: give --seeds N, or --vary seed={flags['seed']}")
    found: dict[str, TrainConfig] = {}
    for values in itertools.product(*fields.values()):
        chosen = dict(zip(fields, values, strict=True))
        found[_name(chosen)] = complete({**flags, **chosen})[0]
    _check_differ(found, list(vary))
    for field in catalogue.FIELDS:
        for value in {getattr(config, field) for config in found.values()}:
            _check_names(field, value)
    return found


def _check_differ(plan: Mapping[str, TrainConfig], varied: Sequence[str]) -> None:
    """UserError if two configurations are sure to be one experiment with one seed, in spite of what varies."""
    first: dict[str, str] = {}
    for name, config in plan.items():
        unsettled = [config.init, config.data_root, config.precision]  # files, and what `auto` will come to
        unsettled += [config.device] if config.precision == "auto" else []
        other = first.setdefault(json.dumps([experiment(config), config.seed, unsettled]), name)
        if other != name:
            fields = [field for field in varied if getattr(config, field) != getattr(plan[other], field)] or varied
            raise UserError(
                f"--vary {', '.join(fields)}: {other} and {name} would be one experiment with one seed, trained twice;"
                " give all runs one value"
            )


def check_at_hand(configurations: Iterable[TrainConfig]) -> None:
    """Before any run: UserError if a data set, or a user's own class, is not there. No component is imported."""
    from fewshot.data import open_dataset

    needed = list(configurations)
    for dataset, root in dict.fromkeys((config.dataset, config.data_root) for config in needed):
        open_dataset(dataset, root)
    for field in catalogue.FIELDS:
        for spec in (spec for value in {getattr(config, field) for config in needed} for spec in parse(value)):
            if "." in spec.name and (why_not := sources.lacks(spec.name)):
                raise UserError(f"cannot import {field} {spec.name!r}: {why_not}")


def _check_names(field: str, value: str, where: str = "") -> None:
    """Before any run: UserError if a value is neither a component of ours nor a dotted name. It is not imported."""
    known = [*catalogue.names(catalogue.FIELDS[field]), *(["original"] if field == "reg" else [])]
    try:
        specs = parse(value)
    except UserError as error:
        hint = f"--vary {field}: {error}; values that have commas are separated by |"
        raise UserError(hint if where else str(error)) from None
    for spec in specs:
        if "." not in spec.name and spec.name not in known:
            raise unknown(f"{field}{where}:", spec.name, known)


def _typed(field: str, values: Sequence[str]) -> list[Any]:
    """Texts as values of a field, as its flag reads them."""
    hint = typing.get_type_hints(TrainConfig)[field]
    if typing.get_origin(hint) is tuple:
        raise UserError(f"--vary {field}: it is a list itself; vary it in a file (fewshot sweep GRID.toml)")
    if hint is bool:
        if wrong := [value for value in values if value not in ("true", "false")]:
            raise UserError(f"--vary {field}={wrong[0]}: give true or false")
        return [value == "true" for value in values]
    parser = Parser(prog="fewshot.sweep")
    configs.add_flags(parser)
    return [getattr(parser.parse_args([configs.flag(field), value]), field) for value in values]


def _name(chosen: Mapping[str, Any]) -> str:
    """A run's folder: what varies in it, readable; a digest stands for what a folder's name cannot hold."""
    varied = {field: value for field, value in chosen.items() if field != "seed"}
    parts = [str(value) if field in _NAMED else f"{field}={value}" for field, value in varied.items()]
    text = "-".join(parts) or "run"
    readable = re.sub(r"[^\w.,=@+-]+", "-", text)
    if readable != re.sub(r":", "-", text) or len(readable) > _LONGEST:
        readable = f"{readable[:_LONGEST]}-{digest(text)}"
    return f"{readable}-seed{chosen['seed']}"
