"""Other people's packages as oracles: without them, tests are skipped, or fail if the packages are required."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest


def neighbour(name: str) -> ModuleType:
    """The module, imported. FEWSHOT_REQUIRE_NEIGHBOURS=1 makes its absence a failure."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"needs {name} ({error})"
        if os.environ.get("FEWSHOT_REQUIRE_NEIGHBOURS") == "1":
            pytest.fail(message)
        pytest.skip(message, allow_module_level=True)
