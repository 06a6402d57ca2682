"""A run that another process trains: read from its folder again and again, shown as training shows itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.files import vacant
from fewshot.reports.following.progress import ConsoleReporter
from fewshot.reports.tables import print_run
from fewshot.runs import Run
from fewshot.runs.metrics import Follower

_PAUSE = 0.5  # seconds between looks
_GONE = 2.0  # seconds without a process at work after which a run counts as left
_RECENT = 10  # steps that the figures are a mean of: as many as training logs at once


def follow(folder: Path, console: Console) -> None:
    """Show the run in `folder` until it is finished, or until its process has left it.

    Waits for a run that is not there yet. Raises UserError if the folder is no run's, or if a file in it is damaged.
    """
    run = _awaited(folder, console)
    run.check_has_network()
    _check(run)
    config = run.config
    console.print(
        f"{folder}: {config.backbone}, {config.head}, {config.reg} on {config.dataset}, {_how(config)},"
        f" seed {config.seed}"
    )
    log, shown, alive = Follower(run.metrics_path), Followed(console), time.monotonic()
    _, rows = log.read()
    shown.begin(run, run.steps, rows[-1]["step"] if rows else 0)
    shown.rows(rows)
    try:
        while not (finished := run.finished):
            if run.at_work:
                alive = time.monotonic()
            elif time.monotonic() - alive > _GONE:
                break
            time.sleep(_PAUSE)
            shown.rows(log.read()[1])
        shown.rows(log.read()[1])
    finally:
        shown.end()
    if finished:
        _check(run)
        if shown.best_step:
            shown.trained(run.environment["train_seconds"], shown.best, shown.best_step)
        print_run(console, run)
    else:
        console.print(
            f"No process is at work on {folder}, which has come to step {shown.last:,} of {run.steps:,}: go on with"
            f" --out {folder} --resume"
        )


def _how(config: TrainConfig) -> str:
    """What it is trained on: tasks, or the regime if it has none."""
    episodic = config.regime.partition(":")[0] == "episodic"
    return f"{config.ways}-way {config.shots}-shot" if episodic else config.regime


def _awaited(folder: Path, console: Console) -> Run:
    """The run in `folder`, as soon as there is one."""
    if vacant(folder):
        console.print(f"No run is in {folder} yet: waiting for it. Ctrl-C ends this.")
        while vacant(folder):
            time.sleep(_PAUSE)
    return Run.open(folder)


def _check(run: Run) -> None:
    """UserError if what is logged is not what environment.json says.

    A process at work may replace one of the two between our looks at them; then the next look is right.
    """
    for attempt in range(3):
        try:
            list(run.metrics())
            return
        except FileNotFoundError:  # nothing is logged yet
            return
        except UserError:
            if attempt == 2 or not run.at_work:
                raise
        time.sleep(_PAUSE)


class Followed(ConsoleReporter):
    """Shows lines of a log, which say at which step a validation was, but not in which epoch."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.last, self.best, self.best_step = 0, 0.0, 0
        self._validated: dict[int, dict[str, float]] = {}

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show the next lines. Those that a run repeats after a kill are the same, and are not shown twice."""
        for row in rows:
            self.last = row["step"]
            if (found := row.get("validation")) and self._validated.get(self.last) != found:
                if self.last <= max(self._validated, default=0):  # other figures: training was started again
                    self._validated.clear()
                    self.best, self.best_step = 0.0, 0
                self._validated[self.last] = found
                if row.get("best"):
                    self.best, self.best_step = next(iter(found.values())), self.last
                self.validated(f"step {self.last}/{self.total}", found, row.get("best", False))
        if steps := [row for row in rows if "loss" in row][-_RECENT:]:
            loss, accuracy = (float(np.mean([row.get(name, np.nan) for row in steps])) for name in ("loss", "accuracy"))
            self.step(steps[-1]["step"], loss, accuracy, steps[-1].get("images_per_second", np.nan))

    def announce(self, left: float) -> None:
        """Says nothing: whoever started the run was told if it is long."""
