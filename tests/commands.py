"""Commands called as a user calls them, and what they must leave on stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A training of seconds on the embedded glyphs: 6 steps, 2 validations.
SMALL = [
    "--dataset", "glyphs", "--epochs", "2", "--episodes-per-epoch", "6", "--episodes-per-batch", "2",
    "--val-episodes", "20", "--test-episodes", "50", "--threads", "1", "--device", "cpu",
]  # fmt: skip


def command(name: str, *args: str | Path, **kwargs) -> subprocess.CompletedProcess:
    """`python -m fewshot.NAME ARGS` in a process of its own."""
    kwargs.setdefault("timeout", 300)
    return subprocess.run(
        [sys.executable, "-m", f"fewshot.{name}", *map(str, args)], capture_output=True, text=True, **kwargs
    )


def one_line_error(capsys: pytest.CaptureFixture) -> str:
    """The error line that a command left on stderr, which must be the only one."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]
