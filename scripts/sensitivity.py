"""Vary one option of a regularizer at a time and plot the accuracy, as figure 3 of the TargetDrop paper does.

    python scripts/sensitivity.py
    python scripts/sensitivity.py --reg dropblock --seeds 3 --sweep drop_prob 0.1 0.2 --sweep sites 2 3 2,3

The other options stay as --reg has them. Each point is a run folder that is skipped when it is done and resumed when it
was cut, so the command can be repeated until everything is there. Flags that are not listed here go to fewshot.train:
--reg (targetdrop), --dataset (glyphs, with the recipe glyphs-quick), --backbone, --head, --epochs, and so on.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import writable_parent

if TYPE_CHECKING:

    from fewshot.config import TrainConfig
    from fewshot.data.store import Dataset
    from fewshot.runs import Run
    from fewshot.sweeps.points import Point


def parser() -> Parser:
    about, _, more = __doc__.split("\n\n")
    parser = Parser(prog="scripts.sensitivity", description=about, epilog=more)
    parser.add_argument(
        "--sweep", action="append", nargs="+", metavar=("OPTION", "VALUE"),
        help="an option of the regularizer, or sites, and its values; without, a list of ours for each option that"
        " has one, of which what the regularizer declines is left out",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each point with seeds 0 .. N-1")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the run folders; without, one under runs/")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of table, plot and points; without, --out")
    return parser


def main(argv: list[str] | None = None) -> None:
    args, rest = parser().parse_known_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give at least 1")

    from sensitivity_report import Findings, Measured, keep

    from fewshot.data import open_dataset
    from fewshot.defaults import configure
    from fewshot.sweeps.points import plan
    from fewshot.train import train_flags

    flags = {"reg": "targetdrop", "dataset": "glyphs"}
    flags |= train_flags(rest, taken={"seed": "--seeds N, for seeds 0 .. N-1"})
    if flags["dataset"] == "glyphs":
        flags.setdefault("recipe", "glyphs-quick")
    config = configure(**flags)
    if config.episodic_pace.steps == 0:
        raise UserError("--epochs 0: untrained, all points are the same; give 1 or more")
    dataset = open_dataset(config.dataset, config.data_root)
    base, points = plan(config.reg, config.backbone, dataset.image_size, args.sweep or [])
    out = args.out or Path("runs/sensitivity", slug(f"{base}-{config.backbone}-{config.head}-{config.dataset}"))
    results = args.results or out
    writable_parent(results / "table.md")
    regs = ["none", *dict.fromkeys(point.reg for point in points if not point.declined)]
    # Seed by seed, so that the whole curve comes first and its repeats after it.
    wanted = {(reg, seed): out / f"{slug(reg)}-seed{seed}" for seed in range(args.seeds) for reg in regs}
    announce(config, dataset, points, bool(args.sweep), list(wanted.values()))
    runs = train_all(config, wanted)

    shots = tuple(dict.fromkeys(config.test_shots))
    measured = {reg: Measured([runs[reg, seed] for seed in range(args.seeds)], shots) for reg in regs}
    seeds = f", {args.seeds} seeds" * (args.seeds > 1)
    title = f"{base} on {config.dataset}: {config.backbone}, {config.head}, {config.episodic_pace.steps:,} steps{seeds}"
    command = "python scripts/sensitivity.py " + " ".join(sys.argv[1:] if argv is None else argv)
    terminal().print(keep(results, Findings(title, base, points, shots, measured), command))
    terminal().print(f"Table, plot and points: {results}")


def train_all(config: TrainConfig, wanted: dict[tuple[str, int], Path]) -> dict[tuple[str, int], Run]:
    """The finished run of each (regularizer, seed) in its folder."""
    from fewshot.reports.progress import ConsoleReporter
    from fewshot.sweeps.runs import complete

    runs: dict[tuple[str, int], Run] = {}
    reporter = ConsoleReporter(terminal())
    try:
        for (reg, seed), folder in wanted.items():
            runs[reg, seed] = complete(dataclasses.replace(config, reg=reg, seed=seed), folder, reporter)
    except KeyboardInterrupt:
        done = f"{len(runs)} of {len(wanted)} runs are done; the same command goes on"
        raise KeyboardInterrupt(f"interrupted: {done}") from None
    return runs


def announce(config: TrainConfig, dataset: Dataset, points: list[Point], asked: bool, folders: list[Path]) -> None:
    """What will be trained, what will not and why, and about how long it takes."""
    from fewshot.reports.progress import duration
    from fewshot.runs import Run
    from fewshot.sweeps.points import SWEEPS

    console = terminal()
    for point in points:
        if point.declined:
            console.print(f"Declined: {point.option} {point.value} ({point.declined}).")
    absent = [option for option in SWEEPS if option not in {point.option for point in points}]
    if absent and not asked:
        console.print(f"Not swept, for {config.reg} has none: {', '.join(absent)}.")
    left = [folder for folder in folders if not (folder.exists() and Run.open(folder).finished)]
    estimate = duration(len(left) * seconds_a_run(config, dataset)) if left else "0s"
    steps = config.episodic_pace.steps
    console.print(f"{len(folders)} runs of {steps:,} steps, {len(left)} of them to do: about {estimate}.")


def seconds_a_run(config: TrainConfig, dataset: Dataset) -> float:
    """From timing a step without regularizer; an image that is only embedded is a third of the work."""
    import torch

    from fewshot import model as models
    from fewshot.core import compute

    where = compute.choose(config.device, config.precision)
    compute.settle(where, config.threads, config.deterministic)
    if where.device.type == "cpu":
        compute.keep_heap()
    model = models.build(config.backbone, "none", config.head, dataset.image_size, dataset.mean, dataset.std)
    model = model.to(where.device)
    in_a_step = config.episodes_per_batch * config.ways * (config.shots + config.queries)
    images = torch.rand(in_a_step, 3, dataset.image_size, dataset.image_size, device=where.device)
    images = images.contiguous(memory_format=torch.channels_last)
    for _ in range(4):  # the first ones are slow
        began = time.perf_counter()
        with where.autocast():
            loss = model(images).float().square().mean()
        loss.backward()
        loss.item()  # waits for the device
        took = time.perf_counter() - began
    validations = sum(config.episodic_pace.validates_after(step) for step in range(1, config.episodic_pace.steps + 1))
    embedded = validations * len(dataset["val"].images) + len(dataset["test"].images)
    return took * (config.episodic_pace.steps + embedded / 3 / in_a_step)


def slug(reg: str) -> str:
    """A regularizer's text as a folder's name."""
    return re.sub(r"[^\w.,=@+-]", "-", reg)


if __name__ == "__main__":
    raise SystemExit(run(main))
