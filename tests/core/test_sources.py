"""The code behind a user's component: its module, and the modules beside it that this imports."""

from __future__ import annotations

import hashlib
import importlib
import sys

import pytest

from fewshot.core import sources
from fewshot.core.errors import UserError

FILES = {
    "my_methods/__init__.py": "",
    "my_methods/drop.py": "import torch, numpy\nfrom . import helpers\nfrom my_tools import scale\n",
    "my_methods/helpers.py": "from .deeper import deepest\n",
    "my_methods/deeper/__init__.py": "",
    "my_methods/deeper/deepest.py": "import my_methods.drop  # a circle\n",
    "my_methods/unused.py": "",
    "my_tools.py": "def scale(): import my_late\n",
    "my_late.py": "",
    "my_other.py": "",
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_methods.drop")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_a_module_and_what_it_imports_from_beside_it(written):
    found = sources.users(["my_methods.drop", "fewshot.core.errors"])
    assert set(found) == set(FILES) - {"my_methods/unused.py", "my_other.py"}
    assert all(path == written / name for name, path in found.items())


def test_an_installed_package_is_its_own_files_alone():
    """pytest stands for a package of methods that somebody has installed."""
    found = sources.users(["_pytest.mark.structures"])
    assert {name.partition("/")[0] for name in found} == {"_pytest"}


def test_line_ends_do_not_count(tmp_path):
    for name, data in (("unix.py", b"a = 1\nb = 2\n"), ("dos.py", b"a = 1\r\nb = 2\r\n")):
        (tmp_path / name).write_bytes(data)
    expected = hashlib.sha256(b"a = 1\nb = 2\n").hexdigest()
    assert sources.digest(tmp_path / "unix.py") == sources.digest(tmp_path / "dos.py") == expected


def test_ours_are_the_component_and_what_it_takes_from_its_neighbours():
    importlib.import_module("fewshot.regularizers.camdrop")
    files = sources.ours([], ["fewshot.regularizers.camdrop"])
    found = {path.relative_to(sources.PACKAGE).as_posix() for path in files}
    assert {"regularizers/camdrop.py", "regularizers/dropblock.py", "regularizers/_base.py"} <= found
    assert "regularizers/targetdrop.py" not in found and "runs.py" not in found


def test_code_without_a_file_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "interactive", type(sys)("interactive"))
    with pytest.raises(UserError, match="put it into a .py file"):
        sources.users(["interactive"])
