"""Named sets of values for the configuration, read from the TOML files of this folder. Nothing here imports torch.

`papers/` has one file per paper: its recipes, and the tables that it printed (docs/papers.md).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError, unknown
from fewshot.core.toml import read_toml

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every recipe: its path below fewshot/recipes/, without the ending; or PAPER/PART, a part of a paper's file."""
    found = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.toml")]
    single = [name for name in found if not name.startswith("papers/")]
    pieces = [f"{name}/{part}" for name in papers() for part in paper(name) if part != "tables"]
    return sorted(single + pieces)


def papers() -> list[str]:
    """The papers that have a file of recipes and tables."""
    return sorted(path.stem for path in (FOLDER / "papers").glob("*.toml"))


def paper(name: str) -> dict[str, Any]:
    """The file of a paper: the parts of its recipes by name, each with `about`; and `tables`, what the paper printed.

    Do not change it: the file is read only once.
    """
    return _parsed(FOLDER / "papers" / f"{name}.toml")


@functools.cache  # `train` asks several times as it starts
def _parsed(path: Path) -> dict[str, Any]:
    return read_toml(path, f"recipes of {path.stem}")


def values(name: str) -> dict[str, Any]:
    """A recipe's values by field; of several joined by `+`, later ones override earlier ones.

    Later ones are looked up in the folder of the first: `table3/NAME+quick` is `table3/NAME` and `table3/quick`.
    Raises UserError for an unknown recipe.
    """
    found: dict[str, Any] = {}
    for part in parts(name):
        written = _written(part)
        written.pop("about", None)
        found |= configs.from_json(written, f"recipe {part}")
    return found


def values_of(config: TrainConfig) -> dict[str, Any]:
    """The values of a configuration's recipe; {} if it has none, or if the recipe is no longer there."""
    try:
        return {} if config.recipe == "none" else values(config.recipe)
    except UserError:
        return {}


def parts(name: str) -> list[str]:
    """The recipes that `+` joins, each by its whole name. Raises UserError for an unknown one."""
    first, *more = name.split("+")
    folder = first.rpartition("/")[0]
    whole = [first, *(f"{folder}/{each}" if folder else each for each in more)]
    for part in whole:
        if part not in names():
            raise unknown("recipe", part, names())
    return whole


def about(name: str) -> str:
    """What a recipe is: its `about`, or the comment at the head of its file."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        return _written(name)["about"]
    lines = path.read_text("utf-8").splitlines()
    comment = [line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    return "\n".join(comment) or "(no comment)"


def _written(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.toml"
    if path.is_file():
        return read_toml(path, f"recipe {name}")
    folder, _, part = name.partition("/")
    return dict(paper(folder)[part])


def resolve(dataset: str, flags: dict[str, Any]) -> TrainConfig:
    """The configuration for a data set: the dataclass's values, overridden by a recipe's, and these by `flags`.

    The recipe is the one that `flags` name, else the one named like the data set, if there is one.
    """
    name = flags.get("recipe", "auto")
    if name == "auto":
        name = dataset if dataset in names() else "none"
    below = {} if name == "none" else values(name)
    config = TrainConfig(**{**below, **flags, "dataset": dataset, "recipe": name})
    if flags.get("lr_epochs") or flags.get("lr_values"):  # a recipe's may have no effect, those asked for must
        _check_steps(config)
    return config


def _check_steps(config: TrainConfig) -> None:
    """Raise UserError if a rate of the step schedule would never be the learning rate."""
    if config.schedule != "steps":
        raise UserError(
            f"--lr-epochs and --lr-values do nothing with --schedule {config.schedule}: give --schedule steps, or leave"
            " them out"
        )
    if wrong := [epoch for epoch in config.lr_epochs if not 0 <= epoch < config.epochs]:
        last = config.epochs - 1
        raise UserError(f"--lr-epochs {wrong[0]}: training has the epochs 0 to {last}; give some of these")
