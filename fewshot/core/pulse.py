"""Signs of life among processes on several machines.

A process that is killed is noticed by its closed connections. One that hangs, or whose machine is gone, is only noticed
by these signs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

BEAT = 3.0  # seconds
MISSED = 8  # beats of ours without one of another: not a time, because the whole job may have been suspended
_LEFT = 1 << 40  # added by one that has left


class Pulse:
    """Counts in a store while this process lives, and checks whether the next one does.

    `store`: a torch.distributed store, over a connection of its own. `silent(rank, seconds)` is called, in a thread, if
    the next process, or the first one (beside which the store is), has not been heard of for so long.
    """

    def __init__(self, store: Any, rank: int, size: int, silent: Callable[[int, float], None]) -> None:
        self._store, self._rank, self._next, self._silent = store, rank, (rank + 1) % size, silent
        self._left = threading.Event()
        self._answers = self._count = 0
        for work in (self._ask, self._watch):  # two, because a store that is gone may never answer
            threading.Thread(target=work, name="pulse", daemon=True).start()

    def _ask(self) -> None:
        with suppress(RuntimeError):
            while not self._left.wait(BEAT):
                self._store.add(f"pulse/{self._rank}", 1)
                self._count = self._store.add(f"pulse/{self._next}", 0)
                self._answers += 1

    def _watch(self) -> None:
        unanswered = missed = answers = count = 0
        while not self._left.wait(BEAT):
            unanswered = unanswered + 1 if self._answers == answers else 0
            missed = missed + 1 if self._count == count < _LEFT else 0
            answers, count = self._answers, self._count
            if max(unanswered, missed) >= MISSED:
                self._silent(0 if unanswered >= MISSED else self._next, MISSED * BEAT)

    def stop(self) -> None:
        """No more beats: so those that wait for this process, and are told by nothing else, notice that it failed."""
        self._left.set()

    def leave(self) -> None:
        """All is done: nobody should wait for our next beat."""
        self.stop()
        with suppress(RuntimeError):
            self._store.add(f"pulse/{self._rank}", _LEFT)
