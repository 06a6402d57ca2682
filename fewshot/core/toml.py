"""TOML files, which people write: recipes, grids of sweeps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fewshot.core.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """The content of a TOML file. Raises UserError, which calls it `name`, if it is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{name} is not TOML: {error}") from None
