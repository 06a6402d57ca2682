"""See a sweep through: start what is left, watch it, retry what a lost process left unfinished."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from fewshot.core.console import USER_ERROR
from fewshot.sweeps.executors import Executor
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.worker import TAKEN

TRIES = 3  # of a run whose process dies, before it counts as failed
_PAUSE = 0.3  # seconds between looks


def conduct(
    sweep: Sweep, executor: Executor, look: Callable[[set[str], dict[str, str]], None] = lambda running, failed: None
) -> dict[str, str]:
    """Train every run of the sweep that is not done. Returns the runs that failed, by name, and why.

    Runs that another process works on are waited for, and taken over if it dies. `look(running, failed)` is called
    several times a second. On KeyboardInterrupt, and on any error, the executor's processes save and are stopped.
    """
    left = set(sweep.left())
    failed: dict[str, str] = {}
    others = set()  # runs that another sweep's process has
    tries: Counter[str] = Counter()
    try:
        executor.start(name for name in sweep.plan if name in left)
        while left:
            for name, status in executor.ended().items():
                if sweep.done(name):
                    left.discard(name)
                elif status == TAKEN:
                    others.add(name)
                elif status == USER_ERROR:
                    failed[name] = sweep.last_words(name)
                    left.discard(name)
                elif tries[name] + 1 < TRIES:
                    tries[name] += 1
                    executor.start([name])
                else:
                    how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
                    failed[name] = f"its process died {TRIES} times ({how}); its last line: {sweep.last_words(name)}"
                    left.discard(name)
            for name in sorted(others):
                if sweep.done(name):
                    left.discard(name)
                    others.discard(name)
                elif not sweep.claimed(name):
                    others.discard(name)
                    executor.start([name])
            look(executor.running() | others, failed)
            if left:
                time.sleep(_PAUSE)
    except BaseException as error:  # whatever it is, no process may go on training unnoticed
        executor.stop()
        if not isinstance(error, KeyboardInterrupt):
            raise
        done = len(sweep.plan) - len(left) - len(failed)
        raise KeyboardInterrupt(
            f"interrupted: {done} of {len(sweep.plan)} runs are done; the same command goes on"
        ) from None
    return failed
