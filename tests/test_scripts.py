"""Every script can be started: what it imports is there."""

from __future__ import annotations

import importlib

import pytest
from commands import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_a_script_finds_what_it_imports(name):
    assert importlib.import_module(name).__doc__
