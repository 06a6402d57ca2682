"""What tests share: commands called as a user calls them, a small trained run, the real images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

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


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on glyphs; tests must not change it."""
    from fewshot import cli, train

    folder = tmp_path_factory.mktemp("runs") / "small"
    assert cli.run(train.main, [*SMALL, "--reg", "targetdrop", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def mini_imagenet_source() -> Path:
    """The real images as they come; skipped without them, failed where they are required."""
    source = Path(os.environ.get("FEWSHOT_TEST_MINI_IMAGENET", ROOT.parent / "shared" / "data" / "mini-imagenet"))
    if not source.is_dir():
        message = f"mini-ImageNet is not at {source}; FEWSHOT_TEST_MINI_IMAGENET names another place"
        if os.environ.get("FEWSHOT_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return source
