"""Runs for a leaderboard: copies of a real one, changed where a test needs it, and sealed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewshot.core import sealed
from fewshot.core.files import file_digest
from fewshot.evaluation.statistics import summarise


def variant(
    source: Path, folder: Path, *, seed: int = 0, reg: str = "targetdrop", gain: float = 0.0, noise: float = 0.0,
    started: str | None = None, config: dict | None = None, row: dict | None = None, each_shot: float = 0.0,
) -> Path:  # fmt: skip
    """A copy of the run `source`: every episode's accuracy `gain` higher, give or take `noise`, and `each_shot` more
    for each shot but the first; `config` and `row` change fields of config.json and of each protocol's row."""
    shutil.copytree(source, folder)
    draw = np.random.default_rng([seed, len(folder.name)])

    def change(result: dict) -> None:
        result["run"] |= {"seed": seed, "regularizer": reg}
        for scored in result["results"]:
            path = folder / scored["episodes_file"]
            more = gain + each_shot * (scored["shots"] - 1) + draw.normal(0, noise, scored["episodes"])
            values = (np.load(path) + more).clip(0, 1).astype(np.float32)
            np.save(path, values)
            proven = summarise(values)
            scored |= {"accuracy": proven.accuracy, "std": proven.std, "ci95": proven.ci95} | (row or {})

    edit(folder / "result.json", change)
    edit(folder / "config.json", lambda value: value.update({"seed": seed, "reg": reg} | (config or {})))
    if started:
        edit(folder / "environment.json", lambda value: value.update(started=started))
    return folder


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a JSON file in place, and seal its run folder again, so that readers believe the change."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    reseal(path.parent)


def reseal(folder: Path) -> None:
    """Set every digest of a run folder to that of the files there now, as if they had been written like this."""
    config = json.loads((folder / "config.json").read_text())
    if type(config.get("format")) is not int or config["format"] < 3:
        return
    config.pop("sha256", None)
    (folder / "config.json").write_bytes(sealed.dump_json(config))
    names = {"config_sha256": file_digest(folder / "config.json")}
    best = folder / "best.safetensors"
    for name in ("environment.json", "result.json"):
        if not (folder / name).is_file():
            continue
        value = json.loads((folder / name).read_text())
        value.pop("sha256", None)
        value |= names
        if name == "environment.json":
            if best.is_file():
                value["weights_sha256"] = [file_digest(best)]
            if (folder / "metrics.jsonl").is_file():
                data = (folder / "metrics.jsonl").read_bytes()
                value |= {"metrics_bytes": len(data), "metrics_sha256": sealed.sha256(data)}
        elif best.is_file():
            value["weights_sha256"] = file_digest(best)
        there = {each.name for each in folder.iterdir()}
        lists = [value[key] for key in ("results", "classification") if isinstance(value.get(key), list)]
        for row in (row for each in lists for row in each):
            for kind in ("episodes", "tasks", "images") if isinstance(row, dict) else ():
                file = row.get(f"{kind}_file")
                if isinstance(file, str) and file in there:
                    row[f"{kind}_sha256"] = file_digest(folder / file)
        (folder / name).write_bytes(sealed.dump_json(value))
