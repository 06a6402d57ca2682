"""What the README shows works as it stands there; its blocks without a mark run in test_docs.py."""

from __future__ import annotations

import re
import subprocess
import sys

from commands import ROOT
from pages import shown

README = ROOT / "README.md"


def test_the_commands_are_listed_and_a_missing_dot_is_told():
    listed = subprocess.run([sys.executable, "-m", "fewshot"], capture_output=True, text=True, cwd=ROOT)
    for name in re.findall(r"^\| `python -m fewshot\.(\w+)", README.read_text(), re.MULTILINE):
        assert f"python -m fewshot.{name} " in listed.stdout
    wrong = subprocess.run([sys.executable, "-m", "fewshot", "trian"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.splitlines() == [
        "error: trian is no argument here; write python -m fewshot.train, with a dot"
    ]


def test_any_network_is_scored_in_three_lines(capsys):
    assert len(shown(README, "benchmark").splitlines()) == 3
    exec(shown(README, "benchmark"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("glyphs test, 5-way 1-shot: ") and second.endswith("% (10,000 episodes)")
