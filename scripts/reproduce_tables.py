"""Train rows of the papers' classification tables, and print theirs beside ours.

    python scripts/reproduce_tables.py --list
    python scripts/reproduce_tables.py TD-2 camdrop/cifar-10+camdrop --seeds 3
    python scripts/reproduce_tables.py TD-1-CIFAR-10 --dataset fashion-mnist --epochs 15 --schedule cosine

A name is a table's or a recipe's, or how several begin. The runs are a sweep: finished ones are left alone and
interrupted ones go on, so the command can be repeated until everything is there. Flags that are not listed here go to
fewshot.train.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paper_rows
from keep import command
from keep import keep as keep_runs
from paper_rows import Row, Table
from rich import box
from rich import table as rich

from fewshot.config import TrainConfig
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.data import open_dataset
from fewshot.defaults import configure
from fewshot.evaluation import verdicts
from fewshot.evaluation.intervals import training_anew
from fewshot.evaluation.proportions import paired_difference, wilson
from fewshot.identity import pixels
from fewshot.learning import regimes
from fewshot.reports.sweep import markdown
from fewshot.reports.tables import print_whole
from fewshot.runs import Run
from fewshot.sweeps import launch
from fewshot.sweeps.folder import Sweep
from fewshot.train import train_flags

HEADER = ("recipe", "paper", "ours", "against the row without it")


def parser() -> Parser:
    parser = Parser(prog="scripts.reproduce_tables", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="tables or recipes, by how their names begin")
    parser.add_argument("--list", action="store_true", help="print the rows and the papers' numbers, and train nothing")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each row with seeds 0 .. N-1")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), metavar="FOLDER", help="of the run folders")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep the tables and what proves them there")
    launch.add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    args, rest = parser().parse_known_args(argv)
    flags = train_flags(rest, taken={"recipe": "names of recipes", "seed": "--seeds N, for seeds 0 .. N-1"})
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give at least 1")
    launch.check(args)
    tables = paper_rows.chosen(args.names or [""])
    if args.list and tables:
        return show(tables, {}, args.seeds)
    if not args.names or not tables:
        there = ", ".join(table.name for table in paper_rows.tables())
        asked = f"{' '.join(args.names)}: no table or recipe begins so" if args.names else "name tables or recipes"
        raise UserError(f"{asked}; there are {there}, and --list has their recipes")
    plan = planned(tables, args.seeds, launch.threads(args, flags.get("device", "auto")) | flags)
    for name, root, regime in {(config.dataset, config.data_root, config.regime) for config in plan.values()}:
        dataset = open_dataset(name, root)  # now rather than after hours
        if not dataset.shared_classes:
            raise UserError(f"{name} has other classes in its test split: these tables are of classification")
        if not regimes.classifies(regime, dataset):
            raise UserError(f"--regime {regime} trains no classifier, and these tables are of classification")
    sweep = Sweep.make(args.out, plan)
    failed = launch.train(sweep, args, terminal())
    runs = {name: Run.open(sweep.path(name)) for name in plan if name not in failed}
    show(tables, runs, args.seeds)
    if args.results:
        keep(args.results, tables, runs, args.seeds, command("reproduce_tables.py", argv, runs.values()))
    launch.check_all_done(sweep, failed)


def planned(tables: list[Table], seeds: int, flags: dict[str, Any]) -> dict[str, TrainConfig]:
    """Every run by its name: seed by seed, so that comparisons come first and repeats after them."""
    rows = {row.recipe: row for table in tables for row in table.rows}.values()
    return {
        run_name(row, seed): configure(**flags | {"recipe": row.recipe, "seed": seed})
        for seed in range(seeds)
        for row in rows
    }


def run_name(row: Row, seed: int) -> str:
    return f"{row.name}-seed{seed}"


# ---- the tables


def show(tables: list[Table], runs: dict[str, Run], seeds: int) -> None:
    console = terminal()
    for table in tables:
        drawn = rich.Table(*HEADER, box=box.SIMPLE_HEAD, title=title(table), title_justify="left")
        for line in lines(table, runs, seeds):
            drawn.add_row(*line)
        print_whole(console, drawn)  # names of recipes are there to be copied
    if runs:
        console.print(explained(seeds))


def title(table: Table) -> str:
    return f"{table.name}: {table.where}, {table.what}; {table.measure} (%)"


def lines(table: Table, runs: dict[str, Run], seeds: int) -> list[list[str]]:
    """Text, a line a row, as HEADER names its columns."""
    return [
        [row.recipe, "" if row.paper is None else f"{row.paper:.2f}", *ours(table, row, runs, seeds)]
        for row in table.rows
    ]


def ours(table: Table, row: Row, runs: dict[str, Run], seeds: int) -> tuple[str, str]:
    """Our number, and its difference to the row without what this one adds; "not run" if it is not there."""
    right = named_rightly(row.name, runs, seeds)
    if right is None:
        return "not run", ""
    without = named_rightly(row.baseline.replace("/", "-"), runs, seeds) if row.baseline else None
    return number(table, right), "" if without is None else difference(table, right, without)


def named_rightly(name: str, runs: dict[str, Run], seeds: int) -> np.ndarray | None:
    """(seeds, images) bool: whether each run of a row classifies each test image correctly. None if one is missing."""
    found = [runs.get(f"{name}-seed{seed}") for seed in range(seeds)]
    return np.stack([tested(each) for each in found if each]) if all(found) else None


def tested(each: Run) -> np.ndarray:
    """(images,) bool."""
    row = next(row for row in each.classification if row["split"] == "test" and pixels(row) == pixels(each.resolved))
    return verdicts.read(each.folder, row).top1


def number(table: Table, right: np.ndarray) -> str:
    """One seed: Wilson's interval over images. Several: their mean, Student's t over seeds, and each."""
    measured = right if table.measure == "accuracy" else ~right
    if len(measured) == 1:
        (only,) = measured
        low, high = wilson(int(only.sum()), only.size)
        return f"{100 * only.mean():.2f} ({100 * low:.2f} .. {100 * high:.2f})"
    each = measured.mean(1)
    found = training_anew(each)
    return f"{100 * found.estimate:.2f} ± {100 * found.half_width:.2f} ({_each(each, '.2f')})"


def difference(table: Table, right: np.ndarray, without: np.ndarray) -> str:
    """Paired, image by image: with one seed by McNemar's test, with several by Student's t over seeds."""
    sign = 1 if table.measure == "accuracy" else -1
    if len(right) == 1:
        found = paired_difference(right[0], without[0])
        low, high = sorted((sign * found.low, sign * found.high))
        return f"{100 * sign * found.estimate:+.2f} ({100 * low:+.2f} .. {100 * high:+.2f}), p = {found.p_value:.2g}"
    each = sign * (right.mean(1) - without.mean(1))
    found = training_anew(each)
    return f"{100 * found.estimate:+.2f} ± {100 * found.half_width:.2f} ({_each(each, '+.2f')})"


def _each(values: np.ndarray, form: str) -> str:
    return ", ".join(format(100 * value, form) for value in values)


def explained(seeds: int) -> str:
    """What the intervals are, below the tables."""
    if seeds == 1:
        return (
            "In brackets: Wilson's 95% interval of this network on other images of these classes; of differences"
            " Newcombe's, with McNemar's p. One seed: what training anew would change is not in them."
        )
    return f"±: 95%, Student's t over {seeds} seeds, of what training anew gives on average on these images."


def keep(folder: Path, tables: list[Table], runs: dict[str, Run], seeds: int, how: str) -> None:
    """Write table.md, and keep what proves each run: everything but weights."""
    keep_runs(runs.values(), folder)
    parts = [f"## {title(table)}\n\n{markdown(HEADER, lines(table, runs, seeds))}" for table in tables]
    text = "\n\n".join(["# The papers' tables, theirs and ours", f"    {how}", *parts, explained(seeds)])
    write_atomic(folder / "table.md", f"{text}\n".encode())


if __name__ == "__main__":
    raise SystemExit(run(main))
