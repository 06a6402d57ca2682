"""Slips in a user's own method: one line names each, before a training in which it would be silent."""

from __future__ import annotations

import sys

import pytest
from commands import SMALL, one_line_error

from fewshot import train
from fewshot.core import console

HEAD = """
import torch
from fewshot.regularizers import Regularizer


class Mine(Regularizer):
"""
SLIPS = {
    "its `__init__` does not call `super().__init__(site)`": """
    def __init__(self, site, *, rate: float = 0.2):
        self.rate = rate

    def multiplier(self, x, guide=None):
        return (torch.rand(len(x), 1, 1, 1) > self.rate).float()
""",
    "its `multiplier` returns None (a `return` is missing)": """
    def multiplier(self, x, guide=None):
        mask = (torch.rand(len(x), 1, 1, 1) > 0.2).float()
""",
    "its `multiplier` returns tuple, not a tensor": """
    def multiplier(self, x, guide=None):
        return torch.ones_like(x), 1
""",
    "its `multiplier` is of torch.bool: let it return floats, by .float()": """
    def multiplier(self, x, guide=None):
        return torch.rand_like(x) > 0.2
""",
    "its `multiplier` is not finite on maps of which one is all zero": """
    def multiplier(self, x, guide=None):
        return x.abs() / x.abs().amax((2, 3), keepdim=True)
""",
    "its `forward` changes its input in evaluation mode, too": """
    def forward(self, x, guide=None):
        return x.add_(torch.randn_like(x))
""",
    "its `forward` returns None (a `return` is missing) for maps": """
    def forward(self, x, guide=None):
        if not self.training:
            return x
        x + torch.randn_like(x)
""",
}


EARLY = """
    def multiplier(self, x, guide=None):  # less and less, and nothing at the end
        return (torch.rand_like(x) >= 0.5 * (1 - self.progress)).float()
"""
FAITHFUL = """
    def multiplier(self, x, guide=None):  # finite, also where exp is large
        weights = x.exp()
        return weights / weights.mean((2, 3), keepdim=True)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's file, in the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_slip.py"
    sys.modules.pop("my_slip", None)


def run(reg: str) -> int:
    return console.run(train.main, [*SMALL, "--epochs", "1", "--reg", reg, "--out", "run"])


@pytest.mark.parametrize("complaint", SLIPS)
def test_a_slip_is_one_line_before_anything_is_written(module, complaint, capsys):
    module.write_text(HEAD + SLIPS[complaint])
    assert run("my_slip.Mine") == console.USER_ERROR
    assert f"error: my_slip.Mine: {complaint}" in one_line_error(capsys)
    assert not (module.parent / "run").exists()


@pytest.mark.parametrize(
    "body, idle",
    [
        ("    def multiplier(self, x, guide=None):\n        return torch.ones_like(x)\n", True),
        ("    def forward(self, x, guide=None):\n        return x\n", True),
        ("    def multiplier(self, x, guide=None):\n        return (torch.rand_like(x) > 0.01).float()\n", False),
        (EARLY, False),
        (FAITHFUL, False),
    ],
)
def test_a_method_that_changes_nothing_is_pointed_out(module, body, idle, capsys):
    module.write_text(HEAD + body)
    assert run("my_slip.Mine") == 0
    said = "Warning: my_slip.Mine has no effect: it left 20 random maps unchanged"
    assert (said in capsys.readouterr().out) == idle


def test_a_class_that_derives_from_ours_may_have_fewer_options(module, capsys):
    module.write_text("""
from fewshot.regularizers.targetdrop import TargetDrop


class Mine(TargetDrop):
    def __init__(self, site, *, reduction: int = 8):
        super().__init__(site, reduction=reduction)
""")
    assert run("my_slip.Mine:reduction=4") == 0
    assert "no effect" not in capsys.readouterr().out


def test_a_file_for_a_class_and_an_option_by_position_are_told_how(module, capsys):
    module.write_text(HEAD + "    def __init__(self, site, rate: float = 0.2):\n        super().__init__(site)\n")
    assert run("my_slip") == console.USER_ERROR
    assert "unknown regularizer 'my_slip': for the class in my_slip.py, write my_slip.Mine" in one_line_error(capsys)
    assert run("my_slip.Mine:rate=0.3") == console.USER_ERROR
    assert "write a * before it there, as in (..., *, rate=...)" in one_line_error(capsys)
