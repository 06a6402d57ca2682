"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys

from commands import ROOT, SMALL

from fewshot import train
from fewshot.core import console


def shown(mark: str) -> str:
    """The code block that follows a mark in the README."""
    return re.search(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]


def test_the_users_own_method_trains_and_obeys_the_laws(tmp_path, monkeypatch):
    for name in ("my_drop.py", "test_my_drop.py"):
        (tmp_path / name).write_text(shown(name))
    monkeypatch.syspath_prepend(tmp_path)
    assert console.run(train.main, [*SMALL, "--reg", "my_drop.MyDrop:rate=0.2", "--out", str(tmp_path / "run")]) == 0
    test = {}
    exec(shown("test_my_drop.py"), test)
    test["test_my_drop"]()


def test_the_commands_are_listed_and_a_missing_dot_is_told():
    listed = subprocess.run([sys.executable, "-m", "fewshot"], capture_output=True, text=True, cwd=ROOT)
    for name in re.findall(r"^\| `python -m fewshot\.(\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"python -m fewshot.{name} " in listed.stdout
    wrong = subprocess.run([sys.executable, "-m", "fewshot", "trian"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and wrong.stderr.splitlines() == [
        "error: trian is no argument here; write python -m fewshot.train, with a dot"
    ]


def test_any_network_is_scored_in_three_lines(capsys):
    assert len(shown("benchmark").splitlines()) == 3
    exec(shown("benchmark"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("glyphs test, 5-way 1-shot: ") and second.endswith("% (10,000 episodes)")
