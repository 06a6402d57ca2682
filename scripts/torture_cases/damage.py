"""Files of run folders with bits flipped, cut, overwritten or swapped: every reader must refuse them by name."""

from __future__ import annotations

import contextlib
import io
import os
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fewshot
from fewshot import evaluate, experiment
from fewshot.core.errors import UserError
from fewshot.learning.reporter import Reporter
from fewshot.reports import pictures
from fewshot.reports.boards import gathering
from fewshot.reports.comparisons.entries import Finished
from fewshot.runs import Run
from torture_cases import kills


class Accepted(Exception):
    """The reader has read all that it reads, and would now begin its work."""


class Stopping(Reporter):
    """Stops a training when it begins, or at validation number `at_validation`."""

    def __init__(self, at_validation: int | None = None) -> None:
        self.at_validation, self.validations = at_validation, 0

    def begin(self, *_: object) -> None:
        if self.at_validation is None:
            raise Accepted

    def validation(self, *_: object) -> None:
        self.validations += 1
        if self.validations == self.at_validation:
            raise Accepted


def resume(folder: Path) -> None:
    """`train --resume`, up to its first step."""
    with contextlib.suppress(Accepted):
        experiment.run(Run.open(folder).config, folder, Stopping(), resume=True)


def evaluated(folder: Path) -> None:
    """`evaluate`, up to its first image."""

    def stop(*_: object, **__: object) -> None:
        raise Accepted

    from fewshot.evaluation import finished

    whole, finished.score_run = finished.score_run, stop
    flags = [str(folder), "--ways", "3", "--queries", "2", "--shots", "1", "--episodes", "5", "--threads", "1",
             "--device", "cpu", "--precision", "fp32"]  # fmt: skip
    try:
        evaluate.main(flags)
    except Accepted:
        pass
    finally:
        finished.score_run = whole


JSON = ("config.json", "environment.json")
RECORDS = ("episodes-", "tasks-")
# What reads which files, and of which folder: one that is trained and tested ("finished"), one that was cut, or both.
READERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "load": (lambda folder: fewshot.load(folder, device="cpu"), (*JSON, "best.safetensors"), "both"),
    "compare": (lambda folder: Finished.load(str(folder)), (*JSON, "result.json", *RECORDS), "finished"),
    "leaderboard": (lambda folder: gathering.gather(folder.parent), (*JSON, "result.json", "episodes-"), "finished"),
    "show curves": (lambda folder: pictures.read_curves(Run.open(folder)), (*JSON, "metrics.jsonl"), "both"),
    "evaluate": (evaluated, (*JSON, "result.json", "best.safetensors"), "finished"),
    "resume": (resume, (*JSON, "result.json"), "finished"),
    "resume of a cut run": (resume, (*JSON, "checkpoint.pt", "best.safetensors", "metrics.jsonl"), "cut"),
}  # fmt: skip
HOW = ("bit", "bits", "cut", "overwritten", "doubled", "swapped", "emptied")


@dataclass
class Damages:
    """Trials of damage; the counts are of readers that met a damaged file."""

    work: Path
    damages: int = 0
    refused: int = 0
    silent: int = 0
    """Read as if nothing were wrong."""
    tracebacks: int = 0
    nameless: int = 0
    """Refused in a line that does not name the file, nor one that belongs to it."""
    examples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = self.work / "damage-data"
        kills.tiny(data)
        self.folders = {}
        for kind, seed in (("finished", 0), ("cut", 0), ("other finished", 1), ("other cut", 1)):
            folder = self.work / f"{kind.replace(' ', '-')}" / "run"
            settled = kills.config("targetdrop", data, seed)
            reporter = Stopping(2) if "cut" in kind else Stopping(99)
            with contextlib.suppress(Accepted):
                experiment.run(settled, folder, reporter)
            self.folders[kind] = folder
            if "cut" in kind:  # lines after the last checkpoint are dropped at the next sitting
                os.truncate(folder / "metrics.jsonl", Run.open(folder).environment["metrics_bytes"])
        for kind in ("finished", "cut"):
            for name, (read, _, of) in READERS.items():
                if of in (kind, "both"):
                    read(self.folders[kind])  # which must be possible
                    assert name

    def trial(self, number: int) -> None:
        """One file of one run, damaged in one way; all its readers."""
        dice = random.Random(number)
        kind = dice.choice(("finished", "cut"))
        folder, other = self.folders[kind], self.folders[f"other {kind}"]
        readers = {name: its for name, its in READERS.items() if its[2] in (kind, "both")}
        path = dice.choice(sorted(each for each in folder.iterdir() if _readers_of(each.name, readers)))
        before, how = path.read_bytes(), dice.choice(HOW)
        after = _damaged(before, how, dice, (other / path.name).read_bytes())
        if after == before or (path.name, kind) == ("metrics.jsonl", "cut") and after.startswith(before):
            return  # more lines than the checkpoint counts are what a kill leaves
        path.write_bytes(after)
        self.damages += 1
        for name in _readers_of(path.name, readers):
            self._meet(f"damage {number}: {name}, {kind} {path.name}, {how}", readers[name][0], folder, path.name)
        path.write_bytes(before)

    def _meet(self, what: str, read: Callable[[Path], object], folder: Path, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                read(folder)
            except UserError as error:
                self.refused += 1
                named = name in str(error) or (name == "config.json" and ".json" in str(error))
                if not named or "\n" in str(error):
                    self.nameless += 1
                    self.examples.append(f"{what}: {error}")
            except Exception:
                self.tracebacks += 1
                self.examples.append(f"{what}: {traceback.format_exc(limit=-1).splitlines()[-1]}")
            else:
                self.silent += 1
                self.examples.append(f"{what}: silence")


def _readers_of(name: str, readers: dict) -> list[str]:
    return [reader for reader, (_, files, _) in readers.items() if any(name.startswith(file) for file in files)]


def _damaged(data: bytes, how: str, dice: random.Random, other: bytes) -> bytes:
    at = dice.randrange(len(data)) if data else 0
    if how in ("bit", "bits"):
        changed = bytearray(data)
        for _ in range(1 if how == "bit" else dice.randint(2, 9)):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        return bytes(changed)
    end = min(len(data), at + dice.randint(1, 600))
    return {
        "cut": data[:at], "overwritten": data[:at] + bytes(end - at) + data[end:], "swapped": other, "emptied": b"",
        "doubled": data[:end] + data[at:],
    }[how]  # fmt: skip
