"""Files that several processes want at once, and files that a command must not overwrite."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack

import pytest
from commands import one_line_error

from fewshot import evaluate, leaderboard, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.core.files import locked, write_atomic, write_output
from fewshot.runs import Log, Run

_COUNT = """
import sys
from pathlib import Path
from fewshot.core.files import locked
count, lock = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(300):
    with locked(lock, wait=True):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_one_process_at_a_time_holds_a_lock_and_the_last_leaves_nothing(tmp_path):
    count, lock = tmp_path / "count", tmp_path / "lock"
    count.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", _COUNT, count, lock]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert count.read_text() == "1200" and not lock.exists()


_LOOK = """
import sys
from pathlib import Path
from fewshot.core.files import held
print("looking", flush=True)
while True:
    held(Path(sys.argv[1]))
"""


def test_who_looks_whether_a_lock_is_held_keeps_nobody_from_taking_it(tmp_path):
    """`fewshot watch` looks; a training that wanted its lock at that moment used to give up."""
    lock = tmp_path / "lock"
    with ExitStack() as ended:
        for _ in range(3):
            command = [sys.executable, "-c", _LOOK, lock]
            looking = ended.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            ended.callback(looking.kill)
            assert looking.stdout.readline() == "looking\n"
        for _ in range(3000):
            with locked(lock):
                pass


def link(path, to):
    path.symlink_to(to)


def hang(path, to):
    os.mkfifo(path)


def fold(path, to):
    path.mkdir()


def loop(path, to):
    path.symlink_to(path)


def dangle(path, to):
    path.symlink_to(to.parent / "not yet")


@pytest.mark.parametrize("plant", [link, hang, fold, loop, dangle])
def test_nothing_is_written_through_what_somebody_left_in_a_folder(small_run, tmp_path, capsys, plant):
    """The lock of a run and of a CSV, and the log that training appends to."""
    mine = tmp_path / "mine"
    mine.write_text("precious\n")
    locks = shutil.copytree(small_run, tmp_path / "locks")
    logs = shutil.copytree(small_run, tmp_path / "logs")
    (logs / "result.json").unlink()
    (logs / "metrics.jsonl").unlink()
    plant(locks / ".lock", mine)
    plant(logs / "metrics.jsonl", mine)
    plant(tmp_path / ".board.csv.lock", mine)
    untrained = Run.open(logs)
    for command, args in (
        (evaluate, [locks, "--episodes", 20, "--shots", 1]),
        (train, ["--out", locks, "--resume"]),
        (leaderboard, ["--runs", small_run.parent, "--csv", tmp_path / "board.csv"]),
    ):
        if command is train:
            (locks / "result.json").unlink()
        assert console.run(command.main, list(map(str, args))) == console.USER_ERROR
        assert "is no regular file" in one_line_error(capsys)
    with pytest.raises(UserError, match="is no regular file"):
        Log(untrained.metrics_path)
    (logs / "metrics.jsonl").rename(logs / "aside")
    log = Log(untrained.metrics_path)
    (logs / "aside").rename(logs / "metrics.jsonl")
    with pytest.raises(UserError, match="is no regular file"):
        log.append([{}])
    assert mine.read_text() == "precious\n" and not (tmp_path / "not yet").exists()
    assert not (tmp_path / "board.csv").exists()


def test_a_lock_that_was_left_behind_is_taken_and_nothing_in_it_is_lost_before(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("left")
    os.link(lock, tmp_path / "other name")
    with locked(lock):
        assert (tmp_path / "other name").read_text() == "left"
    assert not lock.exists() and (tmp_path / "other name").read_text() == "left"


def plug(path, to):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # the whole path may be too long for a socket


@pytest.mark.parametrize("plant", [hang, fold, plug])
@pytest.mark.parametrize("write", [write_atomic, write_output])
def test_what_is_no_file_is_never_replaced(tmp_path, monkeypatch, plant, write):
    """A device was once replaced by a regular file."""
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "there", tmp_path)
    kind = stat.S_IFMT((tmp_path / "there").stat().st_mode)
    (tmp_path / "to it").symlink_to("there")
    for path in [tmp_path / "there", *([tmp_path / "to it"] if write is write_output else [])]:
        with pytest.raises(UserError, match="is no regular file|is a folder"):
            write(path, b"new")
    assert stat.S_IFMT((tmp_path / "there").stat().st_mode) == kind and len(os.listdir(tmp_path)) == 2


def test_what_the_user_names_is_written_through_links(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "board").write_bytes(b"old")
    (tmp_path / "link").symlink_to("kept/board")
    (tmp_path / "new").symlink_to("kept/not yet/board")
    for name in ("link", "new"):
        write_output(tmp_path / name, b"written")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"written"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="a link to itself"):
        write_output(tmp_path / "loop", b"")
    write_atomic(tmp_path / "link", b"ours")
    assert not (tmp_path / "link").is_symlink() and (kept / "board").read_bytes() == b"written", "in a run folder"
