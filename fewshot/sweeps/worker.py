"""One run of a sweep in a process of its own: python -m fewshot.sweeps.worker FOLDER NAME.

Exit status: that of `fewshot train`, or TAKEN where another process is at work on the run.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fewshot.core import console
from fewshot.sweeps.folder import Sweep

TAKEN = 75  # EX_TEMPFAIL of sysexits.h: come again later


def work(folder: Path, name: str, own_process: bool = False) -> int:
    """Train and test one run of the sweep in `folder`, or go on with it; the exit status.

    `own_process`: it was begun for this alone, and what it prints goes to the run's log already.
    """
    taken = False

    def attempt(_argv: list[str] | None) -> None:
        from fewshot.reports.following.progress import ConsoleReporter
        from fewshot.sweeps.runs import complete

        nonlocal taken
        sweep = Sweep.open(folder)
        try:
            with sweep.claim(name):
                complete(sweep.plan[name], sweep.path(name), ConsoleReporter(console.terminal()))
        except BlockingIOError:
            taken = True

    if own_process:
        status = console.run(attempt, [], own_process)
    else:
        log = Sweep(folder, {}).log(name)
        log.parent.mkdir(exist_ok=True)
        with open(log, "a") as file, redirect_stdout(file), redirect_stderr(file):
            status = console.run(attempt, [])
    return TAKEN if taken else status


if __name__ == "__main__":
    raise SystemExit(work(Path(sys.argv[1]), sys.argv[2], own_process=True))
