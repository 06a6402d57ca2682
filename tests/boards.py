"""Runs for a leaderboard: copies of a real one, changed where a test needs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewshot.evaluation.statistics import summarise


def variant(
    source: Path, folder: Path, *, seed: int = 0, reg: str = "targetdrop", gain: float = 0.0, noise: float = 0.0,
    started: str | None = None, config: dict | None = None, row: dict | None = None,
) -> Path:  # fmt: skip
    """A copy of the run `source`: every episode's accuracy `gain` higher, give or take `noise`; `config` and `row`
    change fields of config.json and of each protocol's row."""
    shutil.copytree(source, folder)
    draw = np.random.default_rng([seed, len(folder.name)])

    def change(result: dict) -> None:
        result["run"] |= {"seed": seed, "regularizer": reg}
        for scored in result["results"]:
            path = folder / scored["episodes_file"]
            values = (np.load(path) + gain + draw.normal(0, noise, scored["episodes"])).clip(0, 1).astype(np.float32)
            np.save(path, values)
            proven = summarise(values)
            scored |= {"accuracy": proven.accuracy, "std": proven.std, "ci95": proven.ci95} | (row or {})

    edit(folder / "result.json", change)
    edit(folder / "config.json", lambda value: value.update({"seed": seed, "reg": reg} | (config or {})))
    if started:
        edit(folder / "environment.json", lambda value: value.update(started=started))
    return folder


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
