"""What a command may do to its own process. Nothing that a user imports does any of it."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, TextIO

from fewshot.core.errors import INTERRUPTED

# SIGHUP: the terminal is gone, or a queue wants its machine back. There is none on Windows.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def processors() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def claim() -> None:
    """Take the process: `kill` then stops it as Ctrl-C does, even if started with `&`; memory comes in huge pages.

    If it was started with nohup, it goes on when the terminal closes.
    """
    for number in STOPS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    huge_pages()
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)


class _Patient(io.FileIO):
    """A stream that is written to as long as possible; then the rest is dropped, and the work goes on."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _patient(stream: TextIO) -> TextIO:
    """The same stream, for a disk that may fill and a reader who may go. It shows what it cannot encode as `?`."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="replace")
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has nothing between
    if type(raw) is not io.FileIO:
        return stream
    stream.flush()
    patient = io.BufferedWriter(_Patient(raw.fileno(), "w", closefd=False))
    return io.TextIOWrapper(
        patient, stream.encoding, "replace", line_buffering=stream.line_buffering, write_through=stream.write_through
    )


def lost_output() -> str:
    """Why standard output could not be written to its end; "" if it could, or if its reader has gone."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Patient):
        sys.stdout.flush()
        if raw.lost and raw.lost.errno != errno.EPIPE:
            return raw.lost.strerror or str(raw.lost)
    return ""


def huge_pages() -> None:
    """Let torch ask the kernel for huge pages (Linux), which it decides at its first allocation: call it before."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt; or the end at once during an import, which may turn it into another error."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            print("interrupted", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt
