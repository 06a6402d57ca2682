"""python -m fewshot.sweep: train every configuration of a grid, several at once, and compare what came of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot import config as configs
from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError
from fewshot.identity import digest
from fewshot.sweeps import grid

if TYPE_CHECKING:
    from fewshot.sweeps.executors import Executor
    from fewshot.sweeps.folder import Sweep

_MORE = """
Every other flag is one of `fewshot train`, and holds for all runs. A run is known by its configuration: runs that are
done are left alone, runs that were cut go on, and the same sweep may be started twice at once. Below --out there is a
run folder for each, logs/ with what they printed, and leaderboard.csv at the end.
"""


def parser() -> Parser:
    parser = Parser(prog="fewshot.sweep", description=summary(__doc__), epilog=_MORE)
    parser.add_argument("grid", nargs="?", metavar="GRID.toml", help="a file with the values, and [vary] below them")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="FIELD=VALUE,VALUE",
        help="a field of the configuration and its values, as reg=none,targetdrop; values that have commas themselves"
        " are separated by |; may be repeated",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="of each configuration, from 0 on: 1")
    parser.add_argument("--out", metavar="FOLDER", help="the sweep's folder; without it, one under runs/sweeps")
    parser.add_argument("--executor", choices=("local", "ray", "slurm"), default="local", help="who runs them")
    parser.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="local: runs at once; 0: one a GPU, else one a processor core"
    )
    parser.add_argument("--address", default=None, help="ray: of a cluster that exists; without it, this machine")
    parser.add_argument("--gpus-per-run", type=int, default=0, metavar="N", help="ray, slurm: GPUs that each run gets")
    parser.add_argument("--minutes", type=int, default=24 * 60, metavar="N", help="slurm: time limit of a run")
    parser.add_argument("--partition", default="", help="slurm: the partition to queue in")
    configs.add_flags(parser)
    return parser


_OWN = ("grid", "vary", "seeds", "out", "executor", "jobs", "address", "gpus_per_run", "minutes", "partition")


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    flags = {name: value for name, value in vars(args).items() if name not in _OWN}
    shared, vary, seeds = grid.read(Path(args.grid)) if args.grid else ({}, {}, None)
    vary |= dict(map(grid.parse_vary, args.vary))
    if args.seeds is not None and args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give a number from 1 on")
    seeds = args.seeds if args.seeds is not None else seeds
    if not vary and (seeds or 1) == 1:
        raise UserError("nothing varies: give --vary FIELD=VALUE,VALUE, or --seeds N")
    if args.jobs < 0 or args.gpus_per_run < 0 or args.minutes < 1:
        raise UserError("--jobs and --gpus-per-run are 0 or more, and --minutes 1 or more")
    values = configs.from_json({**shared, **flags}, "the flags")
    gpus = _gpus(values)
    if "threads" not in values and "threads" not in vary and not gpus:
        # Stated, so that a run goes on to the same bits wherever it is taken up again.
        values["threads"] = max(1, _cores() // args.jobs) if args.jobs else 1
    plan = grid.points(values, vary, seeds)

    from fewshot.sweeps.board import SweepBoard
    from fewshot.sweeps.conduct import conduct
    from fewshot.sweeps.folder import Sweep

    console = terminal()
    sweep = Sweep.make(Path(args.out) if args.out else _default_folder(plan, vary), plan)
    executor = _executor(args, sweep, values, gpus)
    console.print(f"{len(plan)} runs in {sweep.folder}; logs in {sweep.folder / 'logs'}")
    with SweepBoard(console, sweep) as board:
        failed = conduct(sweep, executor, board.look)
        board.look(set(), failed)
    _report(sweep, failed)
    if failed:
        raise UserError(f"{len(failed)} of {len(plan)} runs failed, {next(iter(failed))} first: see the logs")


def _default_folder(plan: dict[str, Any], vary: dict[str, list[Any]]) -> Path:
    first = next(iter(plan.values()))
    about = "-".join([first.dataset, *vary]) or "seeds"
    return Path("runs", "sweeps", f"{about}-{digest({name: configs.to_json(plan[name]) for name in plan})}")


def _executor(args: argparse.Namespace, sweep: Sweep, values: dict[str, Any], gpus: int) -> Executor:
    from fewshot.sweeps import executors

    threads = values.get("threads") or 1
    if args.executor == "ray":
        return executors.Ray(sweep, args.address, threads, args.gpus_per_run)
    if args.executor == "slurm":
        return executors.Slurm(sweep, threads, args.gpus_per_run, args.minutes, args.partition)
    return executors.Local(sweep, args.jobs or gpus or max(1, _cores() // threads), gpus)


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(values: dict[str, Any]) -> int:
    """GPUs that runs may be spread over: 0 where the user names a device."""
    if values.get("device", "auto") not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()


def _report(sweep: Sweep, failed: dict[str, str]) -> None:
    """Rank what is done, compare it, and name what is not."""
    from fewshot.core.files import write_atomic
    from fewshot.reports import board_csv, board_text, comparison
    from fewshot.reports.board_images import IMAGES
    from fewshot.reports.board_tasks import FEWSHOT
    from fewshot.reports.gathering import gather
    from fewshot.reports.leaderboard import aggregate, of_kind
    from fewshot.reports.ranking import rank

    console = terminal()
    scores, _ = gather(sweep.folder)
    if scores:
        rows = rank(aggregate(scores, over_seeds=True), paired=True)
        for kind, name in ((FEWSHOT, "leaderboard.csv"), (IMAGES, "leaderboard-classification.csv")):
            if some := of_kind(kind, rows):
                write_atomic(sweep.folder / name, board_csv.render(kind, some).encode())
        board_text.print_board(console, rows)
    done = [str(sweep.path(name)) for name in sweep.plan if name not in failed]
    if sum(not failed.keys() >= set(names) for names in sweep.configurations.values()) > 1:
        comparison.print_all(console, done)
    for name, why in failed.items():
        console.print(f"failed: {name}: {why}")


if __name__ == "__main__":
    raise SystemExit(run(main))
