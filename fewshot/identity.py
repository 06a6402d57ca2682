"""What makes two runs the same experiment, written down field by field, so that a new field changes no identity.

Every field of the configuration is in exactly one of two tables (a test checks this). FROZEN holds the fields that
describe the experiment, each with its value for runs whose configuration does not know the field. Only what differs
from FROZEN is hashed: a field that is added later, with its neutral value here, does not change the identity of any
earlier run. Never change a value of FROZEN; a default of `config.TrainConfig` may change without it. PROVENANCE holds
the fields that say where, how and under which name the experiment was done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

from fewshot.config import TrainConfig, to_json

FROZEN: dict[str, Any] = {
    "dataset": "mini-imagenet", "regime": "episodic",
    "backbone": "conv4", "head": "proto", "reg": "none", "transform": "none",
    "ways": 5, "shots": 1, "queries": 6, "embed": "joint",
    "epochs": 80, "episodes_per_epoch": 1000, "episodes_per_batch": 8,
    "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "clip_norm": 0.0, "ema": 0.0,
    "schedule": "cosine", "lr_epochs": [], "lr_values": [], "warmup_epochs": 0,
    "crop_padding": 8, "jitter": 0.4, "mirror": True, "sync_bn": False,
    "test_ways": 5, "test_queries": 15, "val_episodes": 1000, "val_every": 1, "val_shots": 0,
}  # fmt: skip

PROVENANCE = (
    "recipe", "seed", "init", "data_root", "device", "precision", "threads", "compile", "deterministic",
    "checkpoint_seconds", "test_episodes", "test_shots",
)  # fmt: skip
"""`precision` and `init` are part of an experiment not as they were written, but as they were resolved (the precision
used, the digest of the weights), which the run folder records."""


HOW = ("data_root", "device", "threads", "checkpoint_seconds")
"""How and where a run is trained from now on: it may continue with other values than it began with."""


def difference(begun: TrainConfig, asked: TrainConfig, passed_over: Collection[str] = ()) -> str | None:
    """The first field in which a run that continues has another value than it began with; None if there is none.

    The fields of HOW and of `passed_over` are not compared.
    """
    before, now = ({**to_json(each), "init": each.init and os.path.abspath(each.init)} for each in (begun, asked))
    return next((n for n in before if before[n] != now[n] and n not in HOW and n not in passed_over), None)


def experiment(config: TrainConfig) -> dict[str, Any]:
    """The fields in which a configuration differs from FROZEN, in JSON's types.

    The same values give the same result, whether they come from a recipe or from flags. Values without effect are left
    out: `val_shots` if it equals `shots`, the steps of a schedule that has none, the momentum of AdamW.
    """
    values = json.loads(json.dumps(to_json(config)))  # tuples become lists
    if values["val_shots"] == values["shots"]:
        values["val_shots"] = 0
    if values["schedule"] != "steps":
        values["lr_epochs"] = values["lr_values"] = []
    if values["optimizer"] == "adamw":
        values["momentum"] = FROZEN["momentum"]
    return {name: values[name] for name, frozen in FROZEN.items() if values[name] != frozen}


def pixels(facts: Mapping[str, Any]) -> str | None:
    """What says on which pixels a result was scored, or a run was trained: for one data set, equal if the pixels are.

    `facts`: a result row, or a run's `resolved`. Returns its former fingerprint, which older ones have under
    `fingerprint` (data/dataset_json.py), so that old and new ones are pooled and ranked together.
    """
    return facts.get("former_fingerprint", facts.get("fingerprint"))


def digest(value: Any, letters: int = 8) -> str:
    """The first `letters` hex digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:letters]
