"""An executor of sweeps that starts no processes: the runs' results are the same, and no time is lost importing torch
again."""

from __future__ import annotations

from fewshot.sweeps.executors import Executor
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.worker import work


class Inline(Executor):
    """Works on runs one after the other, in this process."""

    def __init__(self, sweep: Sweep, jobs: int = 1, gpus: int = 0) -> None:
        super().__init__(sweep)
        self.statuses: dict[str, int] = {}

    def start(self, names) -> None:
        self.statuses |= {name: work(self.sweep.folder, name, self.sweep.how(name)) for name in names}

    def ended(self) -> dict[str, int]:
        ended, self.statuses = self.statuses, {}
        return ended

    def running(self) -> set[str]:
        return set()

    def stop(self) -> None:
        pass
