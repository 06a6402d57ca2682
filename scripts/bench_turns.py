"""Cases in turns, each in a process of its own: what they report, their memory, their time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(__file__).with_name("bench_cases")
MEMORY = {"VmHWM": "peak_bytes", "RssAnon": "own_bytes", "RssFile": "mapped_bytes"}  # as /proc/PID/status has them
LOOK_EVERY = 0.05  # seconds between looks at a case's memory

Figures = dict[str, Any]
Round = dict[str, Figures]


def check_python(python: str) -> str:
    """The interpreter given with --learn2learn; UserError if it has no learn2learn."""
    try:
        needed = [python, "-c", "import fewshot.train, learn2learn"]
        done = subprocess.run(needed, env=_environment(), capture_output=True)
    except OSError as error:
        raise UserError(f"--learn2learn {python}: {error.strerror}; give the path of a Python") from None
    if done.returncode:
        raise UserError(
            f"--learn2learn {python}: it cannot import fewshot and learn2learn; install fewshot there, and run"
            f" sh scripts/install_learn2learn.sh {python}"
        )
    return python


def _environment() -> dict[str, str]:
    """That of a process that imports this checkout's fewshot."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}


def take_turns(
    names: Iterable[str], config: TrainConfig, steps: int, pythons: dict[str, str], console: Console
) -> Round:
    """One round: every case once, by name. `pythons`: those that have an interpreter of their own."""
    figures = {}
    for name in names:
        figures[name] = measure(name, config, steps, pythons.get(name, sys.executable))
        speed = figures[name].get("images_per_second")
        console.print(f"  {name}" + (f" {speed:,.1f} images/s" if speed else ""))
    return figures


def measure(name: str, config: TrainConfig, steps: int, python: str = sys.executable) -> Figures:
    """A case's figures, from a process of its own; the most memory that it held; the time that it took.

    Much less processor time than wall time times threads means that other processes wanted the processor.
    Raises UserError if that process found the user's input wrong.
    """
    command = [python, str(CASES), name, json.dumps(configs.to_json(config)), str(steps)]
    before = os.times()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
    ) as process:
        try:
            out, err, memory = watch(process)
        except BaseException:
            process.terminate()  # not killed: it tidies up after itself
            raise
    after = os.times()
    if process.returncode == 2:
        raise UserError(err.splitlines()[-1].removeprefix("error: "))
    if process.returncode:
        raise RuntimeError(f"{name} ended with status {process.returncode}:\n{err}")
    spent = {
        "user_seconds": after.children_user - before.children_user,
        "system_seconds": after.children_system - before.children_system,
        "wall_seconds": after.elapsed - before.elapsed,
    }
    return json.loads(out.splitlines()[-1]) | memory | spent


def watch(process: subprocess.Popen) -> tuple[str, str, dict[str, int]]:
    """What a process printed on its two streams until its end, and the most memory of each kind that was seen."""
    most: dict[str, int] = {}
    while True:
        try:
            return *process.communicate(timeout=LOOK_EVERY), most
        except subprocess.TimeoutExpired:
            for kind, held in resident(process.pid).items():
                most[kind] = max(held, most.get(kind, 0))


def resident(pid: int) -> dict[str, int]:
    """Bytes of a process in memory, as far as the system tells: the peak so far; its own and mapped files' now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(fields[name].split()[0]) * 1024 for name, kind in MEMORY.items() if name in fields}
