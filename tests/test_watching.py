"""What watches a training: --log, --profile and `fewshot watch`. None of them changes a bit of it, or ends it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from boards import edit, variant
from commands import NETWORK, SMALL, one_line_error
from rich.console import Console

from fewshot import experiment, train, watch
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.core.files import locked
from fewshot.defaults import configure
from fewshot.learning.reporter import Reporter
from fewshot.reports.following import profiling
from fewshot.reports.following.loggers import Logged
from fewshot.reports.following.watching import follow
from fewshot.runs import Run

# 24 steps, validated after the 8th, the 16th and the last; checkpoints at 10 and 20.
CONFIG = configure(
    dataset="glyphs", backbone=NETWORK, reg="dropblock", epochs=3, episodes_per_epoch=8, episodes_per_batch=1,
    queries=1, val_episodes=20, test_episodes=50, threads=1, device="cpu", precision="fp32", checkpoint_seconds=0.001,
)  # fmt: skip


TIMINGS = ("images_per_second", "seconds")


def run(*args) -> int:
    return console.run(train.main, [str(arg) for arg in args])


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl without its timings."""
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in Run.open(folder).metrics()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """An unwatched run where neither logger is installed: it needs none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tensorboard", "wandb"):
            patch.setitem(sys.modules, name, None)
        return experiment.run(CONFIG, tmp_path_factory.mktemp("whole") / "run")


def best(folder: Path) -> bytes:
    return (folder / "best.safetensors").read_bytes()


class Cut(Exception):
    pass


class Cutting(Reporter):
    """Ends a training at step 16 as a kill would: six lines and a validation after the checkpoint."""

    def validation(self, epoch, *_):
        if epoch == 2:
            raise Cut


class Told(Reporter):
    def __init__(self) -> None:
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def scalars(rows: list[dict]) -> dict[str, list[tuple[int, float]]]:
    """What a logger has to hold: (step, value) by name, from the lines of metrics.jsonl."""
    found = defaultdict(list)
    for row in rows:
        for name in row.keys() - {"step", "validation"}:
            found[name].append((row["step"], float(row[name])))
        for name, value in row.get("validation", {}).items():
            found[f"validation/{name}"].append((row["step"], value))
    return dict(found)


def written(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.metrics_path.read_text().splitlines()]


def test_tensorboard_has_each_line_once_and_the_run_the_same_bits(whole, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    out = tmp_path / "cut"
    with pytest.raises(Cut):
        experiment.run(CONFIG, out, Logged(Cutting(), ["tensorboard"]))
    assert len(written(Run.open(out))) == 18, "to step 16, with two validations"
    assert run("--out", out, "--resume", "--log", "tensorboard", "--profile", "3") == 0
    cut = Run.open(out)
    assert lines(out) == lines(whole.folder) and best(out) == best(whole.folder)
    assert cut.config == whole.config

    (file,) = (out / "tensorboard").iterdir()
    found = defaultdict(list)
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
            found[value.tag].append((event.step, number))
    expected = {name: [(at, np.float32(x)) for at, x in each] for name, each in scalars(written(cut)).items()}
    assert found == expected and len(found["loss"]) == 24 and len(found["validation/5shot"]) == 3

    said = capsys.readouterr().out
    trace = out / "profile" / "steps-16-18.json"
    assert f"Profile of steps 16 to 18: {trace}" in said and re.search(r"ms +[\d.]+% +\d+  aten::\w*conv", said)
    operations = [event.get("name") for event in json.loads(trace.read_text())["traceEvents"]]
    assert operations.count("Optimizer.step#SGD.step") == 3


def records(path: Path):
    """The records of a .wandb file, in LevelDB's log format: blocks of 32 KiB hold their parts, each after 7 bytes."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or a last part
            yield record
            record = b""


def test_wandb_has_each_line_once_offline(whole, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "cut"
    with pytest.raises(Cut):
        experiment.run(CONFIG, out, Logged(Cutting(), ["wandb"]))
    assert run("--out", out, "--resume", "--log", "wandb") == 0
    cut = Run.open(out)
    assert lines(out) == lines(whole.folder) and best(out) == best(whole.folder)
    history = []
    for path in sorted((out / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in records(path):
            items = Record.FromString(record).history.item
            history += [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}]
    history = [row for row in history if row]
    assert [row["_step"] for row in history] == list(range(27))
    assert [row["step"] for row in history] == [row["step"] for row in written(cut)]
    found, expected = (
        {name: values for name, values in scalars(rows).items() if name not in TIMINGS and name[0] != "_"}
        for rows in (history, written(cut))
    )
    assert found == expected


@pytest.fixture
def disk(monkeypatch):
    """A disk that takes so many of TensorBoard's records, and then is full."""
    pytest.importorskip("tensorboard")
    from tensorboard.summary.writer.record_writer import RecordWriter

    original, room = RecordWriter.write, [0]

    def write(self, data):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    return room


WARNING = "Warning: --log tensorboard has failed ([Errno 28] No space left on device); training goes on without it."


def test_a_logger_that_fails_is_one_line_and_training_goes_on_to_the_same_bits(disk, small_run, tmp_path, capsys):
    disk[0], out = 4, tmp_path / "run"
    assert run(*SMALL, "--reg", "targetdrop", "--log", "tensorboard", "--profile", "--out", out) == 0
    said = capsys.readouterr()
    assert said.out.count("Warning") == 1 and WARNING in said.out and said.err == ""
    assert lines(out) == lines(small_run) and (out / "best.safetensors").read_bytes() == best(small_run)
    assert [path.name for path in (out / "profile").iterdir()] == ["steps-2-6.json"], "six are all"


@pytest.mark.parametrize("what", ["start", "stop", "export_chrome_trace", "key_averages"])
def test_a_profiler_that_fails_is_one_line(what, small_run, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no profiling here\nbecause of the driver")

    told, run = Told(), Run.open(shutil.copytree(small_run, tmp_path / "run"))
    monkeypatch.setattr(profiling.profile, what, fail)
    profiled = profiling.Profiled(told, 1)
    profiled.begin(run, 8, 0)
    for step in range(8):
        profiled.step_begins(step)
    profiled.end()
    *before, last = told.lines
    assert last == "Warning: --profile has failed (no profiling here); training goes on without it."
    assert len(before) == (what == "key_averages") and not list(run.folder.glob(".steps*"))


def test_where_nothing_can_be_logged_or_profiled_it_is_said(disk, tmp_path, capsys):
    assert run(*SMALL, "--epochs", 0, "--log", "tensorboard", "--profile", 3, "--out", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert said.count("Warning") == 1 and WARNING in said
    assert "Nothing to profile: no step of training is left." in said and not (tmp_path / "run" / "profile").exists()


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--log", "tensorbord"], "unknown logger in --log: 'tensorbord'. Did you mean 'tensorboard'?"),
        (["--log", "tensorboard,wandb"], "--log tensorboard needs tensorboard: pip install 'fewshot[tensorboard]'"),
        (["--log", "wandb"], "--log wandb needs wandb: pip install 'fewshot[wandb]'"),
        (["--profile", "-1"], "--profile -1: give a number of steps"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(flags, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run(*SMALL, *flags) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


# ---- fewshot watch


def watched(folder: Path) -> int:
    return console.run(watch.main, [str(folder)])


def test_a_training_is_watched_from_before_its_beginning_to_its_end(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()  # training takes an empty folder
    command = [sys.executable, "-m", "fewshot.train", *SMALL, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert watched(out) == 0
        printed, _ = process.communicate(timeout=60)
    said = capsys.readouterr().out
    assert said.startswith(f"No run is in {out} yet: waiting for it.")
    theirs, ours = printed.partition("\nepoch 1/2"), said.partition("\nstep 3/6")
    assert re.sub(r"epoch 2/2", "step 6/6", theirs[2]) == ours[2], "validations, time, table: as training itself"


def test_on_a_screen_it_draws_how_far_a_run_is(small_run):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    follow(small_run, screen)
    assert re.search(r"training .*━.*6/6.* loss \d\.\d+  accuracy \d+\.\d%  \d+ images/s", screen.file.getvalue())


def test_a_run_that_was_killed_and_goes_on_is_told_as_it_is(small_run, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    (out / "result.json").unlink()
    log = (out / "metrics.jsonl").read_bytes()
    kept = b"".join(log.splitlines(keepends=True)[:5])  # what a checkpoint at step 4 counts on
    (out / "metrics.jsonl").write_bytes(kept)
    edit(out / "environment.json", lambda value: value.pop("train_seconds"))
    (out / "metrics.jsonl").write_bytes(log[:-5])
    assert watched(out) == 0
    said = capsys.readouterr().out
    assert "step 3/6" in said and "step 6/6" not in said, "half a line is none"
    assert f"No process is at work on {out}, which has come to step 6 of 6: go on with --out {out} --resume" in said

    def resumed():
        """Goes on as training does: cuts its log back, writes some of it again, and ends."""
        pause = threading.Event().wait
        pause(0.7)
        (out / "metrics.jsonl").write_bytes(kept)
        pause(0.7)
        (out / "metrics.jsonl").write_bytes(log)
        for name in ("environment.json", "result.json"):
            shutil.copyfile(small_run / name, out / f".{name}")
            os.replace(out / f".{name}", out / name)

    with locked(out / ".lock"):
        thread = threading.Thread(target=resumed)
        thread.start()
        assert watched(out) == 0
        thread.join()
    said = capsys.readouterr().out
    assert [said.count(text) for text in ("step 3/6  validation", "step 6/6  validation", "5-way 5-shot")] == [1, 1, 1]


def test_what_is_no_run_or_is_damaged_is_one_line(small_run, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a run")
    assert watched(tmp_path) == console.USER_ERROR
    assert "is not a run folder: it has no config.json" in one_line_error(capsys)
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    data = bytearray((out / "metrics.jsonl").read_bytes())
    data[100] ^= 1
    (out / "metrics.jsonl").write_bytes(data)
    assert watched(out) == console.USER_ERROR
    assert f"{out / 'metrics.jsonl'} is damaged" in one_line_error(capsys)


def test_a_line_that_training_never_wrote_is_named(tmp_path):
    from fewshot.runs.metrics import Follower

    path = tmp_path / "metrics.jsonl"
    log = Follower(path)
    assert log.read() == (False, [])
    path.write_text('{"step": 1}\n{"st')
    assert log.read() == (False, [{"step": 1}])
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert log.read() == (False, [{"step": 2}])
    path.write_text('{"step": 4}\n')
    assert log.read() == (True, [{"step": 4}]), "cut back"
    path.write_text('{"step": 4}\n{"step": 5, "accuracy": "high"}\n')
    with pytest.raises(UserError, match="metrics.jsonl is damaged: accuracy is 'high', not a number"):
        log.read()


def test_a_supervised_run_is_said_to_be_one(small_run, tmp_path, capsys):
    """It has no training tasks, whatever --ways says."""
    folder = variant(small_run, tmp_path / "run", config={"regime": "supervised:batch=64"})
    assert console.run(watch.main, [str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "on glyphs, supervised:batch=64, seed 0" in said and "-shot, seed" not in said
