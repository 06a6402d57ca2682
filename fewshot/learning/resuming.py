"""A run that goes on: what its folder says, whether this machine can go on as before, and what has changed since."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot.config import TrainConfig
from fewshot.core.compute import Compute, choose, describe
from fewshot.core.crew import Crew
from fewshot.core.errors import UserError
from fewshot.core.files import vacant
from fewshot.data import Dataset, store
from fewshot.data.watch import Watch
from fewshot.identity import digest
from fewshot.learning.reporter import Reporter
from fewshot.runs import Run
from fewshot.runs.provenance import version


@dataclass(frozen=True)
class Begun:
    """A run that exists already, and what its folder says. Of several processes, only the first has looked."""

    run: Run
    finished: bool
    fresh: bool
    """Whether it has no checkpoint yet."""
    sitting: dict[str, Any] | None
    """What it was last trained with: device, precision, threads, processes, torch."""


def find(config: TrainConfig, out: str | os.PathLike | None, resume: bool, elsewhere: bool = False) -> Begun | None:
    """The run that `out` holds, if it is to go on. Raises UserError if it is of another configuration."""
    if not resume or out is None or vacant(Path(out)):
        return None
    run = Run.open(out)
    run.check_is_of(config, elsewhere)
    return Begun(run, run.finished, not run.checkpoint_path.is_file(), run.sittings[-1] if run.sittings else None)


def where(config: TrainConfig, begun: Begun | None, crew: Crew) -> tuple[Compute, int]:
    """Device, precision and threads: if `auto` is asked for, those that the run was last trained with; else as
    configured. Threads matter on a CPU only: those of a run on CUDA decide nothing.

    Raises UserError if the run cannot go on as it was last trained, also if the number of processes is another.
    """
    if begun is None or begun.sitting is None:
        return choose(config.device, config.precision, crew), config.threads
    folder, last = begun.run.folder, begun.sitting
    command = f"fewshot train --out {folder} --resume"
    go_on = f"; to go on as this machine does it, add --elsewhere to {command}: the run records it"
    if (processes := last.get("processes", 1)) != crew.size:
        raise UserError(
            f"{folder} was last trained in {_processes(processes)}, and here it would go on in"
            f" {_processes(crew.size)}: start {processes}{go_on}"
        )
    device = "cpu" if config.device == "auto" and last["device"].startswith("CPU ") else config.device
    here = choose(device, config.precision, crew)
    if (here.device.type == "cpu") != last["device"].startswith("CPU "):
        raise UserError(f"{folder} was last trained on {last['device']}, here it would go on on {here.device}{go_on}")
    if here.precision != last["precision"]:
        if last["precision"] == "bf16" and choose(device, "auto", crew).precision != "bf16":
            raise UserError(f"{folder} was last trained in bf16, and here it would go on in {here.precision}{go_on}")
        here = choose(device, last["precision"], crew)
    if config.threads or here.device.type != "cpu":
        return here, config.threads
    if last["threads"] > max(torch.get_num_threads(), os.cpu_count() or 1):
        raise UserError(
            f"{folder} was last trained with {last['threads']} threads, and this machine has {os.cpu_count()}"
            f" processors{go_on}"
        )
    return here, last["threads"]


def _processes(count: int) -> str:
    return f"{count} processes" if count > 1 else "one process"


def _began(folder: Run) -> float:
    try:
        return datetime.datetime.fromisoformat(folder.environment["started"]).timestamp()
    except (KeyError, ValueError):
        return 0.0


def check(folder: Run, compute: Compute, dataset: Dataset, code: dict[str, dict[str, str]], reporter: Reporter) -> None:
    """Raises UserError if the images have changed. Warns if the machine or the code has, and notes the code in the run.

    `code`: the digests of the code that trains here and now.
    """
    device = describe(compute.device)
    here = {"device": device, "precision": compute.precision, "processes": compute.crew.size, "torch": version("torch")}
    if compute.device.type == "cpu":
        here["threads"] = torch.get_num_threads()
    for last in folder.sittings[-1:]:
        for name, value in here.items():
            if None not in (before := (folder.unsaid | last)[name], value) and before != value:
                change = f"{name} {value}, after {before}"
                reporter.say(f"Warning: {folder.folder} goes on with {change}: the run records it.")
    if folder.trained and not folder.checkpoint_path.is_file():
        reporter.say(f"Warning: {folder.folder} has no checkpoint: it is trained again, from step 0.")
    if not dataset.is_known_as(folder.resolved["fingerprint"]):
        name = dataset.name
        raise UserError(f"{name} has other pixels now than when {folder.folder} began; restore that copy")
    if dataset.root and Watch(dataset).newest() > _began(folder):  # a file may differ from its record
        store.verify(dataset.root)
    first, last_code = folder.resolved.get("code"), folder.environment.get("resumed_with_code")
    before, now = last_code or first, code
    if before is None or before == now:
        return
    changed = [
        name
        for whose in ("users", "ours")
        for name in sorted(before[whose].keys() | now[whose].keys())
        if before[whose].get(name) != now[whose].get(name)
    ]
    since = f"{folder.folder} {'went on' if last_code else 'began'}"
    reporter.say(
        f"Warning: the code has changed since {since} ({', '.join(changed)}): what comes from here on is"
        " another experiment's, and the run will not be pooled with others."
    )
    between = [*folder.environment.get("code_between", []), digest(last_code)] if last_code else []
    folder.note_environment(resumed_with_code=now, **({"code_between": between} if between else {}))
