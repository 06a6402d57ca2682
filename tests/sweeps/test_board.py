"""What a sweep says while it runs: who has ended and how, and the time that is left."""

from __future__ import annotations

import io
import re

from boards import edit, variant
from rich.console import Console

from fewshot.config import TrainConfig
from fewshot.sweeps import board
from fewshot.sweeps.board import SweepBoard
from fewshot.sweeps.folder import Sweep

NAMES = tuple(f"none-seed{seed}" for seed in range(5))


def test_each_run_is_told_once_as_it_ended(small_run, tmp_path):
    made = Sweep(tmp_path, dict.fromkeys(NAMES[:3], TrainConfig()))
    variant(small_run, tmp_path / NAMES[0])
    untested = variant(small_run, tmp_path / NAMES[1])
    edit(untested / "result.json", lambda result: result.update(results=[]))
    console = Console(file=io.StringIO(), width=200)
    with SweepBoard(console, made) as shown:
        for _ in range(2):
            shown.look(set(), {NAMES[2]: "there is no room on the disk"})
    scored, done, failed = console.file.getvalue().splitlines()
    assert re.fullmatch(r"none-seed0: .*5-way 1-shot.* \d+\.\d\d%  .*5-way 5-shot.* \d+\.\d\d%", scored)
    assert (done, failed) == ("none-seed1: done", "none-seed2: failed: there is no room on the disk")


def test_the_time_left_is_that_of_what_this_call_has_trained(small_run, tmp_path, monkeypatch):
    """One of five runs was done before, and one has failed. Another takes this call ten seconds: so do the last two."""
    now = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    variant(small_run, tmp_path / NAMES[0])
    console = Console(file=io.StringIO(), width=200)
    with SweepBoard(console, Sweep(tmp_path, dict.fromkeys(NAMES, TrainConfig()))) as shown:
        shown.look({NAMES[1]}, {})
        now[0] = 10.0
        variant(small_run, tmp_path / NAMES[1])
        shown.look({NAMES[2]}, {NAMES[4]: "it diverged"})
    first, second = (line for line in console.file.getvalue().splitlines() if "ended" in line)
    assert first == "1 of 5 runs ended" and second == "3 of 5 runs ended, about 20s left"
