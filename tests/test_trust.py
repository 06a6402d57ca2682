"""A run folder is data: code that it names runs only if the user allows it, or has trained with that very code here."""

from __future__ import annotations

import shutil
import sys

import pytest
from boards import edit
from commands import SMALL, one_line_error

import fewshot
from fewshot import evaluate, experiment, show, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.recipes import resolve
from fewshot.runs import Run

EVIL = 'open({mark!r}, "w").close()\nfrom fewshot.regularizers.targetdrop import TargetDrop as Drop\nSPEC = Drop\n'
MINE = """
import torch
from my_scale import SCALE
from fewshot.regularizers import Regularizer


class MyDrop(Regularizer):
    def multiplier(self, x, guide=None):
        return (torch.rand(len(x), 1, x.shape[2], 1) >= 0.2).float() * SCALE
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, on the import path, as a command has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("evil", "evil_pkg", "runs", "my_drop", "my_scale"):
            del sys.modules[name]


@pytest.fixture
def foreign(folder, small_run):
    """A run that somebody else made, and modules that leave a mark if they are executed."""
    run = shutil.copytree(small_run, folder / "runs" / "demo")
    for path in ("evil.py", "evil_pkg/__init__.py", "runs/demo/notes.py", "runs/__init__.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(EVIL.format(mark=str(folder / "executed")))
    (folder / "evil_pkg" / "drop.py").write_text("from fewshot.regularizers.targetdrop import TargetDrop as Drop\n")
    return run


def commands(run) -> dict:
    return {
        "evaluate": (evaluate, [run, "--episodes", 20, "--threads", 1]),
        "show masks": (show, ["masks", run, "--reg", "dropout"]),
        "show cam": (show, ["cam", run]),
        "show activations": (show, ["activations", run]),
        "resume": (train, ["--out", run, "--resume"]),
    }


def call(command, args) -> int:
    return console.run(command.main, list(map(str, args)))


@pytest.mark.parametrize("name", ["evaluate", "show masks", "show cam", "show activations", "resume", "load"])
@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("reg", "runs.demo.notes.Drop", "lies inside the run folder"),
        ("reg", "evil.Drop", "give --trust evil "),
        ("reg", "dropout+evil_pkg.drop.Drop", "give --trust evil_pkg "),
        ("head", "evil.Drop", "give --trust evil "),
        ("backbone", "evil.Drop:width=4", "give --trust evil "),
        ("transform", "l2+evil.Drop", "give --trust evil "),
        ("regime", "evil.Drop", "give --trust evil "),
        ("dataset", "evil.SPEC", "give --trust evil "),
    ],
)
def test_what_a_run_folder_names_is_not_executed(foreign, folder, capsys, name, field, value, expected):
    edit(foreign / "config.json", lambda config: config.update({field: value}))
    if name == "resume":  # else it has nothing left to do
        (foreign / "result.json").unlink()
    if name == "load":
        if field != "dataset":  # `load` opens no data set
            with pytest.raises(UserError, match=expected):
                fewshot.load(foreign, trust=("evil_p", "evil.Drop"))
    else:
        command, args = commands(foreign)[name]
        assert call(command, args) == console.USER_ERROR
        assert expected in one_line_error(capsys)
        assert call(command, [*args, "--trust", "evil_p", "--trust", "evil.Drop"]) == console.USER_ERROR
    assert not (folder / "executed").exists()


def test_a_name_allows_a_package_but_nothing_within_a_run_folder(foreign, folder, capsys):
    edit(foreign / "config.json", lambda config: config.update(reg="runs.demo.notes.Drop"))
    assert call(evaluate, [foreign, "--trust", "runs"]) == console.USER_ERROR
    assert "copy the file to a folder of your own" in one_line_error(capsys)
    assert not (folder / "executed").exists()
    edit(foreign / "config.json", lambda config: config.update(reg="evil_pkg.drop.Drop"))
    assert call(evaluate, [foreign, "--trust", "evil_pkg", "--episodes", 20, "--threads", 1]) == 0
    assert (folder / "executed").exists()
    edit(foreign / "config.json", lambda config: config.update(reg="evil.Drop"))
    fewshot.load(foreign, trust=("evil",))
    with pytest.raises(UserError, match="give a sequence of names"):
        fewshot.load(foreign, trust="evil")


def test_ones_own_run_needs_no_word_until_its_code_changes(folder, capsys, monkeypatch):
    for name, text in (("my_drop.py", MINE), ("my_scale.py", "SCALE = 1.25\n")):
        (folder / name).write_text(text)
    run = folder / "runs" / "own"
    assert call(train, [*SMALL, "--reg", "my_drop.MyDrop", "--out", run]) == 0
    again = [run, "--shots", 1, "--episodes", 20, "--threads", 1]
    assert call(evaluate, again) == call(train, ["--out", run, "--resume"]) == 0
    fewshot.load(run)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_STATE_HOME", str(folder / "another user"))
        capsys.readouterr()
        assert call(evaluate, again) == console.USER_ERROR
        assert "give --trust my_drop " in one_line_error(capsys)
    (folder / "my_scale.py").write_text("SCALE = 0.875\n")  # what the component imports counts, too
    assert call(evaluate, again) == console.USER_ERROR
    assert "as it is now" in one_line_error(capsys)
    assert call(evaluate, [*again, "--trust", "my_drop"]) == 0
    assert f"Warning: my_scale.py has changed since {run} was trained" in capsys.readouterr().out
    picture = ["masks", run, "--images", 2, "--threads", 1, "--out", folder / "masks.png", "--trust", "my_drop"]
    assert call(show, picture) == 0
    assert "trained with my_drop.MyDrop (my_scale.py has changed since)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="my_scale.py has changed since"):
        fewshot.load(run, trust=("my_drop",))
    flags = ["--out", run, "--resume", "--reg", "my_drop.MyDrop"]
    assert call(train, flags) == 0, "what the command line names is allowed"
    with pytest.warns(UserWarning, match="its results are from the old code"):
        experiment.run(Run.open(run).config, run, resume=True)


def test_training_needs_no_place_to_remember(folder, monkeypatch, capsys):
    (folder / "my_drop.py").write_text(MINE)
    (folder / "my_scale.py").write_text("SCALE = 1.25\n")
    write_atomic(folder / "file", b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "file"))
    config = resolve("glyphs", {"reg": "my_drop.MyDrop", "epochs": 0, "test_episodes": 20, "val_episodes": 5})
    run = experiment.run(config, folder / "run")
    with pytest.raises(UserError, match="--trust my_drop"):
        fewshot.load(run.folder)
