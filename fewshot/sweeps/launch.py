"""What commands that train a sweep have in common: flags that say where, and the training with its table.

Nothing here imports torch or NumPy, for the sake of their --help.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fewshot.config import flag
from fewshot.core.errors import UserError
from fewshot.core.process import processors

if TYPE_CHECKING:
    from rich.console import Console

    from fewshot.sweeps.executors import Executor
    from fewshot.sweeps.folder import Sweep

FLAGS = ("executor", "jobs", "address", "gpus_per_run", "minutes", "partition")
_ITS_FLAGS = {"local": ("jobs",), "ray": ("address", "gpus_per_run"), "slurm": ("gpus_per_run", "minutes", "partition")}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """FLAGS: who trains the runs."""
    parser.add_argument("--executor", choices=("local", "ray", "slurm"), default="local", help="what runs them")
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="local: runs at once; 0: one per GPU, or one per processor core",
    )
    parser.add_argument(
        "--address", default=None, help="ray: address of a cluster that is there (default: start one on this machine)"
    )
    parser.add_argument("--gpus-per-run", type=int, default=0, metavar="N", help="ray, slurm: GPUs for each run")
    parser.add_argument("--minutes", type=int, default=24 * 60, metavar="N", help="slurm: time limit of a run")
    parser.add_argument("--partition", default="", help="slurm: partition to queue in")


def check(args: argparse.Namespace) -> None:
    """UserError if one of FLAGS is out of range, or is for another executor."""
    if args.jobs < 0 or args.gpus_per_run < 0 or args.minutes < 1:
        raise UserError("--jobs and --gpus-per-run are 0 or more, and --minutes 1 or more")
    add_flags(defaults := argparse.ArgumentParser())
    usual = vars(defaults.parse_args([]))
    given = {name for name in FLAGS if getattr(args, name) != usual[name]}
    for name in sorted(given.difference(_ITS_FLAGS[args.executor], ["executor"])):
        executors = " or ".join(each for each, flags in _ITS_FLAGS.items() if name in flags)
        raise UserError(f"{flag(name)} is for --executor {executors}, and this sweep has {args.executor}: change one")


def threads(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """{"threads": a run's share of the processor cores}, if runs share them; {} if they are trained on GPUs.

    It goes into the configuration of the runs that begin; one that goes on keeps its own.
    """
    if _gpus(device) or device.startswith("cuda:"):
        return {}
    return {"threads": max(1, processors() // args.jobs) if args.jobs else 1}


def train(sweep: Sweep, args: argparse.Namespace, console: Console) -> dict[str, str]:
    """Train every run of the sweep that is not done, and show it. Returns the runs that failed, by name, and why."""
    from fewshot.sweeps.board import SweepBoard
    from fewshot.sweeps.conduct import conduct

    executor = _executor(sweep, args)
    runs = f"{len(sweep.plan)} run{'s' * (len(sweep.plan) != 1)}"
    console.print(f"{runs} in {sweep.folder}; logs in {sweep.folder / 'logs'}")
    with SweepBoard(console, sweep) as board:
        failed = conduct(sweep, executor, board.look)
        board.look(set(), failed)
    return failed


def check_all_done(sweep: Sweep, failed: dict[str, str]) -> None:
    """UserError if runs have failed."""
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(sweep.plan)} runs failed, {name} first ({why}): see {sweep.log(name)}")


def _executor(sweep: Sweep, args: argparse.Namespace) -> Executor:
    from fewshot.sweeps import executors

    configs = list(sweep.plan.values())
    most, gpus = max(config.threads or 1 for config in configs), _gpus(configs[0].device)
    if args.executor == "ray":
        return executors.Ray(sweep, args.address, most, args.gpus_per_run)
    if args.executor == "slurm":
        return executors.Slurm(sweep, most, args.gpus_per_run, args.minutes, args.partition)
    one_gpu = configs[0].device.startswith("cuda:")
    return executors.Local(sweep, args.jobs or gpus or (1 if one_gpu else max(1, processors() // most)), gpus)


def _gpus(device: str) -> int:
    """GPUs that runs may be spread over: 0 if the user names a device."""
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()
