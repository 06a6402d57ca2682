"""Fill in what a user leaves out of a configuration: the data set, its root, its recipe. Does not import torch."""

from __future__ import annotations

import os
from typing import Any

from fewshot import config as configs
from fewshot import recipes
from fewshot.config import TrainConfig


def configure(**values: Any) -> TrainConfig:
    """Make a complete configuration for `fewshot.run` from some of its fields, as `fewshot train` does from flags.

    `configure(reg="targetdrop", seed=1)` is `fewshot train --reg targetdrop --seed 1`: the data set is mini-imagenet
    if it is prepared, else glyphs, and the recipe is the one with the data set's name. Raises UserError for an unknown
    field or a value out of range.
    """
    return complete(configs.from_json(values, "configure(...)"))[0]


def complete(values: dict[str, Any]) -> tuple[TrainConfig, str]:
    """The complete configuration for some values, by field, and why it has that data set."""
    from fewshot.data import dataset_name, default_dataset  # imports NumPy, and --help need not wait for that

    root, init = values.get("data_root", os.environ.get("FEWSHOT_DATA") or "data"), values.get("init")
    name, why = values.get("dataset", "auto"), "asked for"
    if name == "auto" and values.get("recipe", "auto") not in ("auto", "none"):
        name, why = recipes.values(values["recipe"]).get("dataset", "auto"), "as the recipe says"
    dataset, why = default_dataset(root) if name == "auto" else (dataset_name(name, root), why)
    # Absolute, so that the run can be resumed and evaluated from anywhere.
    places = {"data_root": os.path.abspath(root)} | ({"init": os.path.abspath(values["init"])} if init else {})
    return recipes.resolve(dataset, values | places), why
