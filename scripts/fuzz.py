"""Feed damaged files to every reader of foreign files: nothing may be executed, crash, hang or take much memory.

    python scripts/fuzz.py --inputs 1000000 --minutes 75      # adds to results/fuzz.json, writes results/fuzz.md

Good files of every kind (scripts/foreign.py) are damaged at random, bytes and structure, and read
(scripts/fuzz_readers.py). A reader may either return a file's content, or refuse it in one line.

Each reader runs in a process of its own, with a bound on memory. An input hangs if it takes more than 10 s of
processor time, or a minute by the clock while the process may run (it can be stopped and continued). An execution is:
a program started, a connection opened, a library loaded, a file written or removed outside the reader's folder, or the
module fuzz_trap imported, which damaged files name.

Input N of a reader depends on the reader, N, --seed and the good files. Those of archives and run folders hold the time
at which they were made: so what goes wrong is kept whole, in a folder beside --record. Results are added to --record
after every part, so that a stopped run goes on where it was; --only READER --first N --count 1 tries a single input.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 10  # of processor time: an input that takes longer hangs
PATIENCE = 60  # seconds by the clock, while the process may run: likewise
STUCK = 180  # likewise, for a process that does not even hear its alarm
MEMORY = 2 << 30  # bytes of address space beyond those after start
LEAST = 10_000  # inputs of every reader; after them, the readers get some minutes in turn
PART_SECONDS = 120  # starting a part takes some processor time
WORST = 100  # descriptions kept of what went wrong in one reader
OUTCOMES = ("done", "read", "refused", "crashed", "hung", "executed", "slowest_us", "memory_kb")


@dataclass
class Tally:
    """What became of one reader's inputs."""

    done: int = 0
    read: int = 0
    refused: int = 0
    crashed: int = 0
    hung: int = 0
    executed: int = 0
    slowest_us: int = 0
    """Microseconds of processor time of one input."""
    memory_kb: int = 0
    """Kilobytes by which a process was larger at its largest than after the good files."""
    worst: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in OUTCOMES[:6]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in OUTCOMES[6:]:
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.worst += [each[:4000] for each in other.worst[: WORST - len(self.worst)]]


# ---- a part: one process, one reader, inputs FIRST, FIRST + 1, ...

_HARMFUL = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen")
_WRITING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


_OF_TWO = ("os.rename", "os.link", "os.symlink")  # paths


class Hang(BaseException):
    """An input took too long."""


class Board:
    """A part's numbers in a file that its parent reads, whatever becomes of the process."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * len(OUTCOMES))

    def write(self, tally: Tally) -> None:
        struct.pack_into(f"{len(OUTCOMES)}q", self._map, 0, *(getattr(tally, name) for name in OUTCOMES))

    def read(self) -> Tally:
        return Tally(*struct.unpack_from(f"{len(OUTCOMES)}q", self._map))


def part(name: str, first: int, count: int, seconds: float, seed: int, run: Path, board: Board, kept: Path) -> None:
    """Read so many inputs, or as many as there is time for. Prints a line for everything remarkable.

    Each input is in the folder `kept` while it is read, and stays there if it is remarkable or ends the process.
    """
    from fuzz_readers import reader

    from fewshot.core.errors import UserError
    from fewshot.data.importers.images import Unreadable, quiet_pillow

    tally, armed, remarked, ticks, begun = Tally(), False, False, 0, 0.0

    def remark(what: str) -> None:
        nonlocal remarked
        remarked = True
        print(json.dumps(f"{name} {first + tally.done}: {what}"), flush=True)

    def watch(event: str, arguments: tuple) -> None:
        if not armed:
            return
        writes = event in _WRITING or event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        places = arguments[: 2 if event in _OF_TWO else 1] if writes else ()
        outside = not all(os.path.abspath(os.fsdecode(place)).startswith(folder) for place in places)
        if event in _HARMFUL or outside or event == "import" and arguments[0] == "fuzz_trap":
            tally.executed += 1
            remark(f"executed: {event} {str(arguments)[:200]}")

    def tick(number: int, frame: FrameType | None) -> None:
        nonlocal ticks
        ticks += 1  # not one a second while the process is stopped
        if armed and (time.process_time() - begun > SECONDS or ticks > PATIENCE):
            raise Hang

    def inputs() -> None:
        nonlocal armed, remarked, ticks, begun
        until = time.monotonic() + seconds
        while tally.done < count and time.monotonic() < until:
            rng = random.Random(f"{name} {seed} {first + tally.done}")
            data = rng.choice(it.damages)(rng, rng.choice(it.good), it.good)
            file = kept / f"{name}-{first + tally.done}"
            file.write_bytes(data)
            remarked, ticks, begun, armed = False, 0, time.process_time(), True
            try:
                it.read(data)
                tally.read += 1
            except (UserError, Unreadable) as error:
                if not str(error) or "\n" in str(error):
                    raise AssertionError(f"not one line: {error}") from None
                tally.refused += 1
            except Hang:
                tally.hung += 1
                remark("hung")
            finally:
                armed = False
                tally.slowest_us = max(tally.slowest_us, int(1e6 * (time.process_time() - begun)))
                tally.memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
            if not remarked:
                file.unlink()
            tally.done += 1
            board.write(tally)

    with tempfile.TemporaryDirectory() as made, quiet_pillow(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = tempfile.tempdir = os.path.abspath(made)
        (Path(made) / "path").mkdir()
        (Path(made) / "path" / "fuzz_trap.py").write_text("def Sprung(*_, **__): raise SystemExit\n")
        sys.path.insert(0, str(Path(made) / "path"))
        (Path(made) / "files").mkdir()
        it = reader(name, Path(made) / "files", run)
        for each in it.good:
            it.read(each)  # good files can be read; what is imported at first use, is now
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY,) * 2)
        sys.addaudithook(watch)
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)
        while True:
            try:
                inputs()
                break
            except Exception:
                tally.crashed += 1
                remark(f"crashed: {traceback.format_exc(limit=-3)}")
                tally.done += 1
                board.write(tally)
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_part(name: str, first: int, count: int, seconds: float, seed: int, run: Path, bad: Path) -> tuple[Tally, bool]:
    """A part in a process of its own, and whether the user stopped it with Ctrl-C.

    A part that is killed, or has to be, ends with the input that it was at. Inputs that went wrong are kept in `bad`.
    """
    with tempfile.TemporaryDirectory() as folder:
        numbers, lines, kept = (Path(folder) / each for each in ("numbers", "lines", "inputs"))
        kept.mkdir()
        numbers.write_bytes(bytes(8 * len(OUTCOMES)))
        board = Board(numbers)
        arguments = ("--part", name, first, count, seconds, seed, run, numbers, kept)
        with open(lines, "wb") as out:
            child = subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=out)
        try:
            died, stopped = _watched(child, board), False
        except KeyboardInterrupt:
            died, stopped = "", True
            child.kill()
            child.wait()
        tally = board.read()
        whole = [line for line in lines.read_text().splitlines(keepends=True) if line.endswith("\n")]
        tally.worst = [json.loads(line) for line in whole]
        if died:
            tally.worst.append(f"{name} {first + tally.done}: the process {died}")
        for what in tally.worst:
            bad.mkdir(parents=True, exist_ok=True)
            file = what.partition(":")[0].replace(" ", "-")
            if (kept / file).is_file():  # none if it could not even be made
                shutil.copyfile(kept / file, bad / file)
    if died:
        tally.done += 1
        tally.hung += died == "was stuck"
        tally.crashed += died != "was stuck"
    return tally, stopped


def _watched(child: subprocess.Popen, board: Board) -> str:
    """Wait for a part; returns why it did not end well, or nothing."""
    before, quiet = -1, 0
    while child.poll() is None:
        time.sleep(1)
        done = board.read().done
        before, quiet = done, quiet + 1 if done == before else 0
        if quiet > STUCK:
            child.kill()
            child.wait()
            return "was stuck"
    return f"ended with {child.returncode}" if child.returncode else ""


# ---- all parts


def finished_run(folder: Path) -> Path:
    """A small run on the embedded glyphs, trained in seconds."""
    import fewshot

    values = fewshot.configure(
        dataset="glyphs", reg="targetdrop", epochs=2, episodes_per_epoch=6, episodes_per_batch=2, val_episodes=20,
        test_episodes=50, threads=1, device="cpu", precision="fp32",
    )  # fmt: skip
    fewshot.run(values, folder)
    return folder


def commit() -> str:
    """The checkout's commit, `-dirty` if code in it was changed; the report of an earlier part does not count."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "fewshot", "scripts"))


def rounds(names: list[str], record: dict, inputs: int) -> Iterator[tuple[str, int, int]]:
    """(reader, first input, count): LEAST of each reader, then a part of each in turn until there are so many."""
    tallies = record["readers"]
    for name in names:
        tallies.setdefault(name, Tally())
    while behind := [name for name in names if tallies[name].done < LEAST]:
        yield from ((name, tallies[name].done, LEAST - tallies[name].done) for name in behind)
    while sum(tally.done for tally in tallies.values()) < inputs:
        yield from ((name, tallies[name].done, 1 << 40) for name in names)


def report(record: dict) -> str:
    """results/fuzz.md"""
    import numpy as np
    import PIL
    import torch

    tallies: dict[str, Tally] = record["readers"]
    rows = [
        f"| {name} | {tally.done:,} | {tally.read:,} | {tally.refused:,} | {tally.executed} | {tally.crashed} |"
        f" {tally.hung} | {tally.slowest_us / 1e6:.2f} s | {tally.memory_kb / 1024:.0f} MB |"
        for name, tally in tallies.items()
    ]
    total, least = sum(tally.done for tally in tallies.values()), min(tally.done for tally in tallies.values())
    versions = f"Python {platform.python_version()}, Pillow {PIL.__version__}, NumPy {np.__version__}"
    lines = [
        "# Damaged files, read",
        "",
        f"{total:,} inputs by `scripts/fuzz.py`, seed {record['seed']}, in {record['seconds'] / 60:.0f} minutes on one",
        f"core, at commit {', '.join(record['commits'])}; {versions}, torch {torch.__version__}.",
        "",
        "*Read*: nothing that matters was damaged; *refused*: in one line; *executed*: a program, a connection, a",
        "library, a file written outside the reader's folder, a module that the file names; *crashed*: any other",
        f"exception, or the process's end; *hung*: more than {SECONDS} s of processor time, or {PATIENCE} s by the",
        "clock; *slowest*: one input's processor time; *memory*: what the process had more at its largest than after",
        f"the good files. Every reader had at least {least:,} inputs; beyond {LEAST:,} the number is carried by what",
        "is read fast.",
        "",
        "| reader | inputs | read | refused | executed | crashed | hung | slowest | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def save(record: dict, path: Path) -> None:
    readers = {name: asdict(tally) for name, tally in record["readers"].items()}
    path.with_suffix(".new").write_text(json.dumps(record | {"readers": readers}, indent=1) + "\n")
    os.replace(path.with_suffix(".new"), path)
    path.with_suffix(".md").write_text(report(record))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all readers, earlier ones included")
    parser.add_argument("--minutes", type=float, default=75.0, help="no more than so many")
    parser.add_argument("--seed", type=int, default=0, help="of a new record")
    parser.add_argument("--record", type=Path, default=ROOT / "results" / "fuzz.json", help="the report is beside it")
    parser.add_argument("--only", metavar="READER", help="one reader, and nothing is recorded")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="of --only: the input to begin with")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="of --only: how many")
    parser.add_argument("--part", nargs=8, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, first, count, seconds, seed, run, numbers, kept = args.part
        part(name, int(first), int(count), float(seconds), int(seed), Path(run), Board(Path(numbers)), Path(kept))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = finished_run(Path(folder) / "run")
        if args.only:
            bad = args.record.with_suffix("")
            tally, _ = run_part(args.only, args.first, args.count, 1e9, args.seed, run, bad)
            print(tally, *tally.worst, sep="\n")
            return 0
        return fuzz(args, run)


def fuzz(args: argparse.Namespace, run: Path) -> int:
    from fuzz_readers import READERS

    record = {"seed": args.seed, "seconds": 0.0, "commits": [], "readers": {}}
    if args.record.exists():
        record = json.loads(args.record.read_text())
        record["readers"] = {name: Tally(**values) for name, values in record["readers"].items()}
    record["commits"] = list(dict.fromkeys([*record["commits"], commit()]))
    until = time.time() + 60 * args.minutes
    for name, first, count in rounds(list(READERS), record, args.inputs):
        begun = time.time()
        if begun >= until:
            break
        seconds = min(PART_SECONDS, until - begun)
        tally, stopped = run_part(name, first, count, seconds, record["seed"], run, args.record.with_suffix(""))
        record["seconds"] += time.time() - begun
        record["readers"][name].add(tally)
        save(record, args.record)
        total = sum(each.done for each in record["readers"].values())
        print(f"{total:,}", name, f"+{tally.done:,}", *(worst[:2000] for worst in tally.worst[:5]), flush=True)
        if stopped:
            break
    return 0 if all(not (each.crashed or each.hung or each.executed) for each in record["readers"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
