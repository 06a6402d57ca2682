"""Kill runs at random and damage their files: no bit may differ, and nothing damaged may be read in silence.

    python scripts/torture.py --kills 1000 --damages 10000        # adds to results/torture.md and .json

Kills: short runs of every variant (torture_cases/kills.py) are killed by SIGKILL, half of them from outside at a
random moment, half within a step of a save, by a fault injected there: before, after, or in the middle of a write. Each
is then finished and compared with an undisturbed run: weights, checkpoint, metrics, rows, records. Its evaluation
likewise.

Damages: one file of a run folder is changed, and everything that reads it must refuse it in one line that names it.

Trials are numbered; they go on after those that the .json has counted. `--fresh` starts from zero.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from fewshot import runs
from fewshot.core.compute import describe
from fewshot.core.files import write_atomic, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
KILLS = ("kills", "at_random", "in_saves", "runs", "differences", "failures", "left")
DAMAGES = ("damages", "refused", "silent", "tracebacks", "nameless")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="in all, those counted already included")
    parser.add_argument("--damages", type=int, default=10_000, help="likewise")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of torture.md and torture.json")
    parser.add_argument("--work", type=Path, help="folder for the runs (default: a temporary one)")
    parser.add_argument("--fresh", action="store_true", help="forget what was counted before")
    args = parser.parse_args()

    from torture_cases.damage import Damages
    from torture_cases.kills import Kills, variants

    os.environ.pop("FEWSHOT_DATA", None)  # the runs have images of their own
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "torture.json"
    counted = {"kill trials": 0, "damage trials": 0, "seconds": 0.0, "examples": [], "commits": []}
    counted |= dict.fromkeys((*KILLS, *DAMAGES), 0)
    if file.is_file() and not args.fresh:
        counted = json.loads(file.read_text())
    facts = runs.environment()
    counted["commits"] = list(dict.fromkeys([*counted["commits"], facts["commit"]]))
    work = args.work or Path(tempfile.mkdtemp(prefix="torture-"))
    work.mkdir(parents=True, exist_ok=True)
    about = {"device": describe(torch.device("cpu")), "torch": torch.__version__, "variants": list(variants())}
    try:
        for made, names, key, wanted in (
            (Kills, KILLS, "kills", args.kills), (Damages, DAMAGES, "damages", args.damages)
        ):  # fmt: skip
            if counted[key] >= wanted:
                continue
            tried, trials, last = made(work), f"{key[:-1]} trials", time.monotonic()
            while counted[key] < wanted:
                began, before = time.monotonic(), {name: getattr(tried, name) for name in names}
                tried.trial(counted[trials])
                counted[trials] += 1
                counted["seconds"] = round(counted["seconds"] + time.monotonic() - began, 1)
                for name in names:
                    counted[name] += getattr(tried, name) - before[name]
                counted["examples"] += tried.examples
                tried.examples.clear()
                if time.monotonic() - last > 30 or counted[key] >= wanted:
                    last = time.monotonic()
                    write_json(file, counted | about)
                    write_atomic(args.out / "torture.md", page(counted | about).encode())
                    print(", ".join(f"{name} {counted[name]:,}" for name in names), flush=True)
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    return int(any(counted[name] for name in ("differences", "failures", "silent", "tracebacks", "nameless")))


def page(counted: dict) -> str:
    """The report."""
    examples = "".join(f"- {each}\n" for each in counted["examples"][:40])
    return f"""# Torture

    python scripts/torture.py --kills 1000 --damages 10000

{counted["device"]}, torch {counted["torch"]}, commit {", ".join(map(str, counted["commits"]))},
{counted["seconds"]:,.0f} seconds of trials. The same numbers in torture.json; the command goes on where it stopped.

**Kills.** {counted["runs"]:,} runs were killed {counted["kills"]:,} times by SIGKILL: {counted["at_random"]:,} times
at a random moment, {counted["in_saves"]:,} times within a step of a save (before it, after it, in the middle of a
write). Each was then finished, evaluated again (killed there, too), and compared with an undisturbed run in weights,
checkpoint, metrics, result rows and records.

| | |
|---|---|
| runs with other bits | {counted["differences"]:,} |
| sittings that ended in an error | {counted["failures"]:,} |
| run folders with temporary files left in the end | {counted["left"]:,} |

Variants: {"; ".join(counted["variants"])}.

**Damages.** {counted["damages"]:,} times one file of a run folder was changed (a bit, bits, cut, overwritten, doubled,
emptied, swapped with another run's). What reads it (load, compare, leaderboard, show curves, evaluate, resume of a
finished and of a cut run) met it {counted["refused"] + counted["silent"] + counted["tracebacks"]:,} times. Lines of
metrics.jsonl behind the last checkpoint have no digest, and were spared: `--resume` drops them.

| | |
|---|---|
| refused in one line | {counted["refused"]:,} |
| of these, without naming the file | {counted["nameless"]:,} |
| read in silence | {counted["silent"]:,} |
| tracebacks | {counted["tracebacks"]:,} |
{chr(10) + "What went wrong:" + chr(10) + chr(10) + examples if examples else ""}"""


if __name__ == "__main__":
    sys.exit(main())
