"""A sweep while it runs: one line a configuration, its seeds together."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fewshot.reports.following.progress import duration
from fewshot.reports.tables import DEFAULTS, task_name
from fewshot.sweeps.folder import Sweep


class SweepBoard:
    """A live table on a screen; elsewhere a line whenever a run ends."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self.console, self.sweep = console, sweep
        self.groups = sweep.configurations
        self.scores: dict[str, dict[str, float]] = {}
        self.began = time.monotonic()
        self.told: set[str] = set()
        self.before = {name: sweep.part(name) for name in sweep.plan}  # what earlier calls trained
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> SweepBoard:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def look(self, running: set[str], failed: Mapping[str, str]) -> None:
        """See what has changed, and show it."""
        for name in self.sweep.plan.keys() - self.scores.keys() - failed.keys() - running:
            if self.sweep.done(name):
                self.scores[name] = self._scores(name)
        if self.live:
            self.live.update(self._table(running, failed), refresh=True)
        ended = False
        for name in sorted((self.scores.keys() | failed.keys()) - self.told):
            self.told.add(name)
            figures = "  ".join(f"{task} {100 * value:.2f}%" for task, value in self.scores.get(name, {}).items())
            if not self.live:
                self.console.print(f"{name}: {'failed: ' + failed[name] if name in failed else figures or 'done'}")
                ended = True
        if ended and running:
            self.console.print(self._title(running, failed))

    def _scores(self, name: str) -> dict[str, float]:
        """What a run scored in its own tests, by task; for a classifier, its top-1 accuracy."""
        from fewshot.runs import Run

        run = Run.open(self.sweep.path(name))
        few_shot = {task_name(DEFAULTS | row): row["accuracy"] for row in run.tested()}
        tested = [row for row in run.classification if row["split"] == "test"]
        return few_shot | {f"{row['split']} top-1": row["top1"] for row in tested}

    def _table(self, running: set[str], failed: Mapping[str, str]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, title=self._title(running, failed), title_justify="left")
        for column in ("configuration", "done", "running", "accuracy so far (%)"):
            table.add_column(column, no_wrap=True)
        for group, names in self.groups.items():
            done = [self.scores[name] for name in names if name in self.scores]
            state = f"{len(done)} of {len(names)}" + ", failed" * any(name in failed for name in names)
            steps = [f"step {self.sweep.step(name):,}" for name in names if name in running]
            tasks = [task for task in (done[0] if done else ()) if all(task in each for each in done)]
            means = [f"{task} {100 * sum(each[task] for each in done) / len(done):.2f}" for task in tasks]
            table.add_row(group, state, ", ".join(steps), "  ".join(means))
        return table

    def _title(self, running: set[str], failed: Mapping[str, str]) -> str:
        total = len(self.sweep.plan)
        ended = len(self.scores) + len(failed)
        now = self.before | {name: self.sweep.part(name) for name in running} | dict.fromkeys(self.scores, 1.0)
        wanted = now.keys() - failed.keys()
        elapsed, gained = time.monotonic() - self.began, sum(now[name] - self.before[name] for name in wanted)
        behind = sum(now[name] for name in wanted)
        left = f", about {duration(elapsed / gained * (len(wanted) - behind))} left" if gained > 0.05 else ""
        return f"{ended} of {total} runs ended{left}"
