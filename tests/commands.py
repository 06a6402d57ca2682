"""Commands called as a user calls them, and what they must leave on stderr."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

NETWORK = "conv4:channels=16"  # the smallest of ours

# A training of a second on the embedded glyphs: 6 steps, 2 validations.
SMALL = [
    "--dataset", "glyphs", "--backbone", NETWORK, "--epochs", "2", "--episodes-per-epoch", "6",
    "--episodes-per-batch", "2", "--val-episodes", "20", "--test-episodes", "50", "--threads", "1", "--device", "cpu",
    "--precision", "fp32",
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


@dataclass(frozen=True)
class Finished:
    """A command that succeeded."""

    out: str
    seconds: float
    """Of processor time, because other processes may want the processor, too."""
    kilobytes: float
    """Peak resident memory."""


_MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("used", used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""


def measured(name: str, *args: str | Path) -> Finished:
    """`python -m fewshot.NAME ARGS`, which must succeed; returns what it printed and used."""
    arguments = [sys.executable, "-c", _MEASURE, sys.executable, "-m", f"fewshot.{name}", *map(str, args)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    out, _, used = done.stdout.rpartition("used ")
    return Finished(out, *map(float, used.split()))
