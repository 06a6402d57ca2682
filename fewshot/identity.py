"""What makes two runs the same experiment: written down field by field, so that a new field moves no identity.

Every field of the configuration is in exactly one of two tables (a test says so). FROZEN holds what describes the
experiment, with the value that a run has whose configuration does not know the field. Only what differs from it is
hashed: a field that is added later, with its neutral value here, leaves the identity of every earlier run as it was.
Never change a value of FROZEN; a default of `config.TrainConfig` may change without it. PROVENANCE holds what says
where, how and under which name the experiment was done.
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
"""`precision` and `init` are part of an experiment as what they came to (the resolved precision, the digest of the
weights), which the run folder says, not as what was written."""


HOW = ("data_root", "device", "threads", "checkpoint_seconds")
"""How and where a run is trained from now on: it may go on with other values than it began with."""


def difference(begun: TrainConfig, asked: TrainConfig, passed_over: Collection[str] = ()) -> str | None:
    """The first field in which the configuration of a run that goes on is not what it began with; None: it is the same.

    HOW is passed over, and `passed_over`.
    """
    before, now = ({**to_json(each), "init": each.init and os.path.abspath(each.init)} for each in (begun, asked))
    return next((n for n in before if before[n] != now[n] and n not in HOW and n not in passed_over), None)


def experiment(config: TrainConfig) -> dict[str, Any]:
    """The fields in which a configuration differs from FROZEN, in JSON's types.

    The same values give the same result, whether they come from a recipe or from flags. Values without effect are left
    out: `val_shots` where it equals `shots`, the steps of a schedule that has none, the momentum of AdamW.
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
    """What says on which pixels a result was scored, or a run was trained: equal where these are, for one data set.

    `facts`: a result row, or a run's `resolved`. Its former fingerprint, which older ones have under `fingerprint`
    (data/dataset_json.py): so that old and new ones are pooled and ranked together.
    """
    return facts.get("former_fingerprint", facts.get("fingerprint"))


def digest(value: Any, letters: int = 8) -> str:
    """The first `letters` hex digits of the SHA-256 of a JSON value, the order of its keys aside."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:letters]
