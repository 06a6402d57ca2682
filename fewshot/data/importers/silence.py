"""Keeps what C libraries themselves print about damaged files off the user's terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_lock = threading.Lock()
_inside = 0  # threads
_kept = -1  # meanwhile, a descriptor of the real standard error


@contextmanager
def no_stderr() -> Iterator[None]:
    """While any thread is inside, what anyone writes to standard error is lost, Python too: stay only for moments."""
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
    """Send standard error nowhere. Returns a descriptor of where it went, or -1 if it is closed."""
    try:
        kept = os.dup(_STDERR)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    return kept
