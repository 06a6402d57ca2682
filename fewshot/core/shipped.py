"""The files that come with the project: the folders `data` and `episodes` at the top of the repository.

A checkout and an editable install read them there. A wheel has a copy of each inside the package (see setup.py).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_IN_A_WHEEL = _PACKAGE / "_shipped"


def shipped(name: str) -> Path:
    """The folder `data` or `episodes` that comes with the project."""
    return (_IN_A_WHEEL if _IN_A_WHEEL.is_dir() else _PACKAGE.parent) / name
