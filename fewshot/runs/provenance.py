"""Versions, machine and commit behind a number."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from fewshot.core.sources import PACKAGE
from fewshot.version import __version__


def environment() -> dict[str, Any]:
    """Versions, machine and commit: what a number's reader may ask about."""
    packages = ("torch", "torchvision", "numpy", "scipy", "pillow")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": {"fewshot": __version__} | {name: version(name) for name in packages},
        "commit": _commit(),
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, `-dirty` if a tracked file differs from it; None for an installed wheel."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=PACKAGE, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
