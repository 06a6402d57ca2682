"""Crews of processes, as torchrun starts them, at a fraction of a second each: forks of one that has imported all.

python tests/crews.py        # the parent of the forks; it reads and writes lines of JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewshot.learning.regimes.episodic import Episodic


class Signalled(Episodic):
    """Episodic training in which process `rank` gets signal `number` while it makes the batch of step `at`."""

    @classmethod
    def build(cls, config, dataset, validation, compute, *, at: int = -1, rank: int = 1, number: int = 15):
        made = super().build(config, dataset, validation, compute)
        object.__setattr__(made, "signal", (at, rank, number))
        return made

    def batch(self, step):
        at, rank, number = self.signal
        if (step, self.compute.crew.rank) == (at, rank):
            os.kill(os.getpid(), number)
        return super().batch(step)


class Nursery:
    """Starts crews. Their store is in a process of its own, as torchrun's is, and serves them one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, 0
        arguments = [sys.executable, *(f"-W{each}" for each in sys.warnoptions), __file__]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, size: int, *argv: str | Path) -> Running:
        """Start `fewshot.train ARGV` in `size` processes."""
        self.begun += 1
        folder = self.folder / f"crew{self.begun}"
        folder.mkdir()
        self._send({"size": size, "argv": list(map(str, argv)), "folder": str(folder)})
        return Running(self.hear()["pids"], folder, self.hear)

    def run(self, size: int, *argv: str | Path) -> Running:
        """The same, and wait until it ends."""
        running = self.start(size, *argv)
        running.wait()
        return running

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:  # closes its pipes, which ends it
            pass
        assert self._process.returncode == 0


class Running:
    """A crew at work: process ids by rank, then exit statuses, and what each process printed."""

    def __init__(self, pids: list[int], folder: Path, hear: Callable[[], dict[str, Any]]) -> None:
        self.pids, self.folder, self._hear = pids, folder, hear
        self.statuses: list[int] = []
        self.seconds = 0.0

    def wait(self) -> list[int]:
        """Wait for the end; returns exit statuses by rank, negative if a signal ended the process."""
        if not self.statuses:
            began = time.monotonic()
            self.statuses = self._hear()["statuses"]
            self.seconds = time.monotonic() - began
        return self.statuses

    def printed(self, what: str) -> list[str]:
        """The lines that all processes printed on "out" or "err"."""
        return [line for rank in range(len(self.pids)) for line in self.by(rank, what)]

    def by(self, rank: int, what: str) -> list[str]:
        return (self.folder / f"{rank}.{what}").read_text().splitlines()


def _serve() -> None:
    from torture_cases import kills

    from fewshot import train
    from fewshot.core import console
    from fewshot.reports import sweep, tables  # noqa: F401
    from fewshot.reports.following import progress  # noqa: F401

    kills.ask_once()
    store = kills.Store()
    for line in sys.stdin:
        request = json.loads(line)
        size = request["size"]
        environments = [store.environment(rank, size) for rank in range(size)]
        pids = [_member(request, rank, each, console.run, train.main) for rank, each in enumerate(environments)]
        print(json.dumps({"pids": pids}), flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps({"statuses": statuses}), flush=True)
    store.close()


def _member(request: dict[str, Any], rank: int, environment: dict[str, str], run: Callable, main: Callable) -> int:
    """Fork a process of a crew; returns its id."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for handle, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{request['folder']}/{rank}.{name}", os.O_WRONLY | os.O_CREAT), handle)
        os.environ |= environment
        status = run(main, request["argv"], own_process=True)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
    _serve()
