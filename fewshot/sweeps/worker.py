"""One run of a sweep in a process of its own: python -m fewshot.sweeps.worker FOLDER NAME [HOW].

HOW is JSON: `Sweep.how` of the process that started it; another process at work in the folder may have another one.
Exit status: that of `fewshot train`, or TAKEN if another process is at work on the run.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from fewshot.core import console
from fewshot.sweeps.folder import Sweep

TAKEN = 75  # EX_TEMPFAIL of sysexits.h: come again later


def work(folder: Path, name: str, how: Mapping[str, Any] | None = None, own_process: bool = False) -> int:
    """Train and test one run of the sweep in `folder`, or go on with it; returns the exit status.

    `how`: fields of its configuration (`Sweep.how`). `own_process`: the process was started for this run alone, and
    its output goes to the run's log already.
    """
    taken = False

    def attempt(_argv: list[str] | None) -> None:
        from fewshot.reports.following.progress import ConsoleReporter
        from fewshot.sweeps.runs import complete

        nonlocal taken
        sweep = Sweep.open(folder)
        with ExitStack() as held:
            try:
                held.enter_context(sweep.claim(name))
            except BlockingIOError:
                taken = True
                return
            config = dataclasses.replace(sweep.plan[name], **(how or {}))
            complete(config, sweep.path(name), ConsoleReporter(console.terminal()))

    if own_process:
        status = console.run(attempt, [], own_process)
    else:
        log = Sweep(folder, {}).log(name)
        log.parent.mkdir(exist_ok=True)
        with open(log, "a") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                status = console.run(attempt, [])
            except Exception:  # in a process for this alone, Python would print it
                traceback.print_exc()
                status = console.FAILED
    return TAKEN if taken else status


if __name__ == "__main__":
    how = json.loads(sys.argv[3]) if len(sys.argv) > 3 else None  # a sweep of an earlier version begins it without
    raise SystemExit(work(Path(sys.argv[1]), sys.argv[2], how, own_process=True))
