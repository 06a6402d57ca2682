"""A sweep's folder: the plan, and one run folder for each of its configurations. Several processes may work in it.

    sweep.json      {"format": 1, "runs": {name: configuration}}: what is to be trained
    NAME/           a run folder, once the run has begun
    logs/NAME.log   what its training printed, and why it failed
    .claims/NAME    locked by the process that is at work on it

Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.files import locked, open_own, read_bounded, writable_parent, write_json
from fewshot.identity import HOW, difference
from fewshot.runs import Run

FORMAT = 1
_LARGEST = 64 * 2**20  # bytes of a plan, and of a log
_TAIL = 4096  # last bytes of metrics, with a whole line in them


class Sweep:
    """A sweep's folder, with a plan in it."""

    def __init__(self, folder: Path, plan: Mapping[str, TrainConfig]) -> None:
        self.folder, self.plan = folder, dict(plan)

    @classmethod
    def make(cls, folder: Path, plan: Mapping[str, TrainConfig]) -> Sweep:
        """The sweep of `plan` in `folder`, new or already there; runs in sweep.json that `plan` lacks stay in it.

        A run that is already there is the plan's. Raises UserError if one has another configuration.
        """
        writable_parent(folder / "sweep.json")
        if (folder / "config.json").is_file():
            raise UserError(f"{folder} is a run folder itself: give another --out for the runs of a sweep")
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", wait=True):
            there = cls.open(folder).plan if (folder / "sweep.json").exists() else {}
            for name, config in plan.items():
                if name not in there and (folder / name / "config.json").is_file():
                    Run.open(folder / name).check_is_of(config)
                elif name in there and (field := difference(there[name], config)):
                    before, now = (getattr(each, field) for each in (there[name], config))
                    raise UserError(
                        f"{folder} has {name} with {configs.flag(field)} {before}, not {now}; give another --out"
                    )
            both = there | dict(plan)
            if both != there:
                runs = {name: configs.to_json(config) for name, config in both.items()}
                write_json(folder / "sweep.json", {"format": FORMAT, "runs": runs})
        return cls(folder, plan)

    @classmethod
    def open(cls, folder: Path) -> Sweep:
        """The sweep that a folder holds. Raises UserError if there is none."""
        path = folder / "sweep.json"
        try:
            data = read_bounded(path, _LARGEST)
        except FileNotFoundError:
            raise UserError(f"{folder} holds no sweep: it has no sweep.json") from None
        try:
            written = json.loads(data)
            newer = written["format"] > FORMAT
            runs = {} if newer else written["runs"]
            plan = {name: TrainConfig(**configs.from_json(values, name)) for name, values in runs.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): move it away, and start the sweep again") from None
        if newer:
            known = f"this fewshot reads up to {FORMAT}: install a newer one"
            raise UserError(f"{path} is of format {written['format']}; {known}")
        return cls(folder, plan)

    @property
    def configurations(self) -> dict[str, list[str]]:
        """The names of the runs that differ only in the seed, by what these names share."""
        groups: dict[str, list[str]] = {}
        for name in self.plan:
            groups.setdefault(re.sub(r"-seed\d+$", "", name), []).append(name)
        return groups

    def how(self, name: str) -> dict[str, Any]:
        """Where and how this process wants a run trained: another one may have written sweep.json since."""
        return {field: getattr(self.plan[name], field) for field in HOW}

    def path(self, name: str) -> Path:
        """The folder of one of its runs."""
        return self.folder / name

    def log(self, name: str) -> Path:
        """Where a run's process writes."""
        return self.folder / "logs" / f"{name}.log"

    def done(self, name: str) -> bool:
        """Whether a run is finished. Raises UserError if it is damaged."""
        return (self.path(name) / "config.json").is_file() and Run.open(self.path(name)).finished

    def left(self) -> dict[str, TrainConfig]:
        """The runs that are not finished. Raises UserError if one is damaged."""
        return {name: config for name, config in self.plan.items() if not self.done(name)}

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Keep a run from other processes. Raises BlockingIOError if one has it, of a sweep or a `train` by itself."""
        claims = self.folder / ".claims"
        claims.mkdir(exist_ok=True)
        with locked(claims / name):
            if Run(self.path(name)).at_work:
                raise BlockingIOError
            yield

    def claimed(self, name: str) -> bool:
        """Whether a process is at work on a run."""
        try:
            with self.claim(name):
                return False
        except BlockingIOError:
            return True

    def step(self, name: str) -> int:
        """The last step that a run has logged."""
        try:
            with os.fdopen(open_own(self.path(name) / "metrics.jsonl", os.O_RDONLY), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                steps = re.findall(rb'"step": (\d+)', file.read(_TAIL))
            return int(steps[-1]) if steps else 0
        except (FileNotFoundError, UserError):
            return 0

    def part(self, name: str) -> float:
        """How much of a run's training is done, in 0..1."""
        if not (self.path(name) / "config.json").is_file():
            return 0.0
        run = Run.open(self.path(name))
        return 1.0 if run.finished else min(1.0, self.step(name) / max(1, run.steps))

    def last_words(self, name: str) -> str:
        """The last line that a run's process wrote: why it failed."""
        try:
            lines = read_bounded(self.log(name), _LARGEST).decode(errors="replace").split("\n")
        except (FileNotFoundError, UserError):
            return "it left no log"
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "it said nothing")
