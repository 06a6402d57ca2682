"""Where a sweep's runs are trained: in processes of this machine, on a Ray cluster, by Slurm.

An executor is given names of runs, and says which have ended, and how. Each run is a call of `worker.work`. Whatever
happens to its process, the run folder says how far it came, and the next process goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fewshot.core.errors import UserError
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.worker import work


class Executor(ABC):
    """Works on the runs of one sweep."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    @abstractmethod
    def start(self, names: Iterable[str]) -> None:
        """Work on these runs, as many at once as there is room for, in this order."""

    @abstractmethod
    def ended(self) -> dict[str, int]:
        """The exit status of each run's process that has ended since the last call. Does not wait."""

    @abstractmethod
    def running(self) -> set[str]:
        """The runs that have a process now, as far as is known."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all processes to save and end; returns when they have."""


class Local(Executor):
    """`jobs` processes at once on this machine; with GPUs, each process sees only one of them."""

    def __init__(self, sweep: Sweep, jobs: int, gpus: int = 0) -> None:
        super().__init__(sweep)
        self._free = deque(range(jobs))
        self._gpus = gpus
        self._waiting: deque[str] = deque()
        self._processes: dict[str, tuple[subprocess.Popen, int]] = {}

    def start(self, names: Iterable[str]) -> None:
        self._waiting.extend(names)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and self._free:
            self._launch(self._waiting.popleft(), self._free.popleft())

    def _launch(self, name: str, slot: int) -> None:
        log = self.sweep.log(name)
        log.parent.mkdir(exist_ok=True)
        own = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        if self._gpus:
            own["CUDA_VISIBLE_DEVICES"] = _visible_gpus(self._gpus)[slot % self._gpus]
        how = json.dumps(self.sweep.how(name))
        command = [sys.executable, "-m", "fewshot.sweeps.worker", str(self.sweep.folder), name, how]
        with open(log, "ab") as file:  # a session of its own: Ctrl-C comes to us, and `stop` tells it
            process = subprocess.Popen(command, stdout=file, stderr=file, env=own, start_new_session=True)
        self._processes[name] = process, slot

    def ended(self) -> dict[str, int]:
        found = {name: status for name, (each, _) in self._processes.items() if (status := each.poll()) is not None}
        for name in found:
            self._free.append(self._processes.pop(name)[1])
        self._fill()
        return found

    def running(self) -> set[str]:
        return set(self._processes)

    def stop(self) -> None:
        self._waiting.clear()
        for process, _ in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process, _ in self._processes.values():
            process.wait()


def _visible_gpus(count: int) -> list[str]:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return shown.split(",") if shown else [str(number) for number in range(count)]


class Ray(Executor):
    """On a Ray cluster: the one at `address`, or one started on this machine. All its nodes must see the folder."""

    def __init__(self, sweep: Sweep, address: str | None, threads: int, gpus: float) -> None:
        super().__init__(sweep)
        try:
            import ray
        except ImportError:
            raise UserError("--executor ray needs Ray: pip install 'fewshot[ray]'") from None
        self._ray = ray
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found = address or os.environ.get("RAY_ADDRESS")
            told = f"{'--address' if address else 'RAY_ADDRESS'} {found}: no Ray cluster answers there"
            raise UserError(f"{told if found else 'Ray does not start on this machine'} ({reason})") from None
        # No retries of Ray's own: `conduct` starts a lost run again, and counts.
        self._work = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(work)
        self._jobs: dict[Any, str] = {}

    def start(self, names: Iterable[str]) -> None:
        folder = self.sweep.folder.resolve()
        self._jobs |= {self._work.remote(folder, name, self.sweep.how(name)): name for name in names}

    def ended(self) -> dict[str, int]:
        ready, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0) if self._jobs else ([], [])
        return {self._jobs.pop(job): self._status(job) for job in ready}

    def _status(self, job: Any) -> int:
        try:
            return self._ray.get(job)
        except self._ray.exceptions.RayError:
            return 1

    def running(self) -> set[str]:
        return set(self._jobs.values())

    def stop(self) -> None:
        for job in self._jobs:
            self._ray.cancel(job)  # KeyboardInterrupt there: the run saves its checkpoint
        self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=60) if self._jobs else None
        self._ray.shutdown()


@contextmanager
def _of_slurm() -> Iterator[None]:
    """One line for what submitit raises if there is no Slurm here, or if it takes no such job."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"--executor slurm: {(str(error).splitlines() or [type(error).__name__])[0]}") from None


class Slurm(Executor):
    """One Slurm array job, through submitit; it goes on without us. `cluster`: slurm, or local to try it."""

    def __init__(
        self, sweep: Sweep, threads: int, gpus: int, minutes: int, partition: str, cluster: str = "slurm"
    ) -> None:
        super().__init__(sweep)
        try:
            import submitit
        except ImportError:
            raise UserError("--executor slurm needs submitit: pip install 'fewshot[slurm]'") from None
        with _of_slurm():
            self._executor = submitit.AutoExecutor(folder=sweep.folder / "logs" / "slurm", cluster=cluster)
        self._executor.update_parameters(timeout_min=minutes, cpus_per_task=threads, gpus_per_node=gpus)
        if partition:
            self._executor.update_parameters(slurm_partition=partition)
        self._jobs: dict[str, Any] = {}

    def start(self, names: Iterable[str]) -> None:
        wanted = list(names)
        if wanted:
            folders, hows = [self.sweep.folder.resolve()] * len(wanted), list(map(self.sweep.how, wanted))
            with _of_slurm():
                self._jobs |= zip(wanted, self._executor.map_array(work, folders, wanted, hows), strict=True)

    def ended(self) -> dict[str, int]:
        over = {name: job for name, job in self._jobs.items() if job.done()}
        for name in over:
            del self._jobs[name]
        return {name: 1 if job.exception() else job.result() for name, job in over.items()}

    def running(self) -> set[str]:
        return {name for name, job in self._jobs.items() if job.state.upper() == "RUNNING"}

    def stop(self) -> None:
        """Leaves the jobs in their queue: the same command finds their runs again."""
