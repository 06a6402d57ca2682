"""What a command may do to a process that is its own. Nothing that a user imports does any of it."""

from __future__ import annotations

import os
import signal


def claim() -> None:
    """Take the process: `kill` then stops it as Ctrl-C does, even one begun with `&`; memory comes in huge pages."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    huge_pages()


def huge_pages() -> None:
    """Let torch ask the kernel for huge pages (Linux), which it decides at its first allocation: call it before."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
