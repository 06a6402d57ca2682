"""What a command may do to a process that is its own. Nothing that a user imports does any of it."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType

# SIGHUP: the terminal is gone, or a queue wants its machine back. There is none on Windows.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_INTERRUPTED = 130


def claim() -> None:
    """Take the process: `kill` then stops it as Ctrl-C does, even one begun with `&`; memory comes in huge pages.

    One begun with nohup goes on when the terminal closes.
    """
    for number in STOPS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    huge_pages()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ± shows a question mark
            stream.reconfigure(errors="replace")


def huge_pages() -> None:
    """Let torch ask the kernel for huge pages (Linux), which it decides at its first allocation: call it before."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt; or the end at once where a module is being imported, which may turn it into another error."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            print("interrupted", file=sys.stderr, flush=True)
            os._exit(_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
