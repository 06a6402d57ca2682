"""What C libraries print of damaged files by themselves, kept from the user's terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_lock = threading.Lock()
_inside = 0  # threads
_kept = -1  # the descriptor where standard error goes meanwhile


@contextmanager
def no_stderr() -> Iterator[None]:
    """While any thread is inside, what is written to standard error is lost, by Python too: stay for moments only."""
    global _inside, _kept
    with _lock:
        if _inside == 0:
            _kept = _redirect()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _kept >= 0:
                os.dup2(_kept, _STDERR)
                os.close(_kept)


def _redirect() -> int:
    """Send standard error nowhere; a descriptor of where it went, or -1 where it is closed."""
    try:
        kept = os.dup(_STDERR)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    return kept
