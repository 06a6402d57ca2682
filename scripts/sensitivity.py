"""Vary one option of a regularizer at a time and plot the accuracy, as figure 3 of the TargetDrop paper does.

    python scripts/sensitivity.py
    python scripts/sensitivity.py --reg dropblock --seeds 3 --sweep drop_prob 0.1 0.2 --sweep sites 2 3 2,3

The other options stay as --reg has them. The script is a sweep, like fewshot.sweep: finished runs are left alone and
interrupted ones go on, so the command can be repeated until everything is there. Flags that are not listed here go to
fewshot.train: --reg (targetdrop), --dataset (glyphs, with the recipe glyphs-quick), --backbone, --head, --epochs, and
so on.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import writable_parent
from fewshot.sweeps import launch

if TYPE_CHECKING:
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
    launch.add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    args, rest = parser().parse_known_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give at least 1")
    launch.check(args)

    from keep import command
    from sensitivity_report import Findings, Measured, keep

    from fewshot.data import open_dataset
    from fewshot.defaults import configure
    from fewshot.runs import Run
    from fewshot.sweeps.folder import Sweep
    from fewshot.sweeps.points import plan
    from fewshot.sweeps.runs import check_tasks
    from fewshot.train import train_flags

    flags = {"reg": "targetdrop", "dataset": "glyphs"}
    flags |= train_flags(rest, taken={"seed": "--seeds N, for seeds 0 .. N-1"})
    if flags["dataset"] == "glyphs":
        flags.setdefault("recipe", "glyphs-quick")
    config = configure(**launch.threads(args, flags.get("device", "auto")) | flags)
    if config.epochs == 0:
        raise UserError("--epochs 0: untrained, all points are the same; give 1 or more")
    check_tasks([config])
    dataset = open_dataset(config.dataset, config.data_root)
    base, points = plan(config.reg, config.backbone, dataset.image_size, args.sweep or [])
    out = args.out or Path("runs/sensitivity", slug(f"{base}-{config.backbone}-{config.head}-{config.dataset}"))
    results = args.results or out
    writable_parent(results / "table.md")
    regs = ["none", *dict.fromkeys(point.reg for point in points if not point.declined)]
    # Seed by seed, so that the whole curve comes first and its repeats after it.
    names = {(reg, seed): f"{slug(reg)}-seed{seed}" for seed in range(args.seeds) for reg in regs}
    sweep = Sweep.make(out, {names[key]: dataclasses.replace(config, reg=key[0], seed=key[1]) for key in names})
    say_left_out(base, points, bool(args.sweep))
    launch.check_all_done(sweep, launch.train(sweep, args, terminal()))

    runs = {key: Run.open(sweep.path(name)) for key, name in names.items()}
    shots = tuple(dict.fromkeys(config.test_shots))
    measured = {reg: Measured([runs[reg, seed] for seed in range(args.seeds)], shots) for reg in regs}
    seeds = f", {args.seeds} seeds" * (args.seeds > 1)
    title = f"{base} on {config.dataset}: {config.backbone}, {config.head}, {runs['none', 0].steps:,} steps{seeds}"
    how = command("sensitivity.py", argv, runs.values())
    terminal().print(keep(results, Findings(title, base, points, shots, measured), how))
    terminal().print(f"Table, plot and points: {results}")


def say_left_out(base: str, points: list[Point], asked: bool) -> None:
    """What will not be trained, and why."""
    from fewshot.sweeps.points import SWEEPS

    for point in points:
        if point.declined:
            terminal().print(f"Declined: {point.option} {point.value} ({point.declined}).")
    absent = [option for option in SWEEPS if option not in {point.option for point in points}]
    if absent and not asked:
        terminal().print(f"Not swept, for {base} has none: {', '.join(absent)}.")


def slug(reg: str) -> str:
    """A regularizer's text as a folder's name."""
    return re.sub(r"[^\w.,=@+-]", "-", reg)


if __name__ == "__main__":
    raise SystemExit(run(main))
