"""Train the few-shot table of the TargetDrop paper (its table 3), and print the paper's beside ours.

    python scripts/reproduce_table3.py --quick --seeds 3 --cells proto-conv4

Each cell is a recipe (`table3/CELL`). The script is a sweep, like fewshot.sweep: finished runs are left alone and
interrupted ones go on, so the command can be repeated until everything is there. Flags that are not listed here go to
fewshot.train: --data-root, --device, --threads, and whatever else is to be the same for every cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keep import command
from keep import keep as keep_runs
from rich import box
from rich.table import Table

from fewshot import recipes
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.defaults import configure
from fewshot.reports.sweep import difference, explained, markdown, score
from fewshot.runs import Run
from fewshot.sweeps import launch
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.runs import accuracies, check_tasks
from fewshot.train import train_flags

SHOTS = (1, 5)


@dataclass(frozen=True)
class Row:
    """A method of the table: two cells, trained 1- and 5-shot. `baseline`: the one that it is compared with."""

    name: str
    title: str
    paper: tuple[float, float]
    baseline: str | None = None

    def cell(self, shots: int) -> str:
        return f"{self.name}-{shots}shot"


ROWS = (
    Row("proto-conv4-none", "ProtoNet, Conv-64F, none", (49.42, 68.20)),
    Row("proto-conv4-targetdrop", "ProtoNet, Conv-64F, TargetDrop", (51.51, 69.29), "proto-conv4-none"),
    Row("r2d2-conv512f-dropout", "R2D2, Conv-512F, Dropout", (51.2, 68.8)),
    Row("r2d2-conv512f-targetdrop", "R2D2, Conv-512F, TargetDrop", (54.18, 71.95), "r2d2-conv512f-dropout"),
    Row("proto-resnet12-dropblock", "ProtoNet, ResNet-12, DropBlock", (58.15, 75.49)),
    Row("proto-resnet12-targetdrop", "ProtoNet, ResNet-12, TargetDrop", (58.34, 76.04), "proto-resnet12-dropblock"),
)
CELLS = [row.cell(shots) for row in ROWS for shots in SHOTS]


def parser() -> Parser:
    parser = Parser(prog="scripts.reproduce_table3", description=__doc__.splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    for name in ("long", "quick", "cpu", "metaoptnet"):
        about = (recipes.FOLDER / "table3" / f"{name}.toml").read_text().splitlines()[0].rpartition(": ")[2]
        length.add_argument(f"--{name}", dest="length", action="store_const", const=name, help=about)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each cell with seeds 0 .. N-1")
    parser.add_argument("--cells", nargs="+", default=[""], metavar="CELL", help="those whose names begin so")
    parser.add_argument("--out", type=Path, default=Path("runs/table3"), metavar="FOLDER", help="of the run folders")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep the table and the runs' small files there")
    launch.add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    args, rest = parser().parse_known_args(argv)
    flags = train_flags(rest, taken={"recipe": "--cells and a length", "seed": "--seeds N, for seeds 0 .. N-1"})
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give at least 1")
    cells = [cell for cell in CELLS if cell.startswith(tuple(args.cells))]
    if not cells:
        raise UserError(f"--cells {' '.join(args.cells)}: no cell begins so; there are {', '.join(CELLS)}")
    launch.check(args)
    flags = launch.threads(args, flags.get("device", "auto")) | flags
    names = {  # seed by seed, so that comparisons come first and repeats after them
        f"{cell}-seed{seed}": flags | {"recipe": recipe_of(cell, args.length), "seed": seed}
        for seed in range(args.seeds)
        for cell in cells
    }
    plan = {name: configure(**values) for name, values in names.items()}
    if not set(SHOTS) <= set(flags.get("test_shots", SHOTS)):
        raise UserError("--test-shots: the table needs 1 and 5; leave it out")
    folder = args.out / (args.length or "literal")
    check_tasks(Sweep(folder, plan).left().values())
    sweep = Sweep.make(folder, plan)
    launch.check_all_done(sweep, launch.train(sweep, args, terminal()))
    runs = {name: Run.open(sweep.path(name)) for name in plan}
    scores = {
        (cell, shots): accuracies([runs[f"{cell}-seed{seed}"] for seed in range(args.seeds)], shots)
        for cell in cells
        for shots in SHOTS
        if cell.endswith(f"-{shots}shot")
    }
    lines = table(scores)
    terminal().print(drawn(lines))
    terminal().print(explained(args.seeds, BASELINE))
    if args.results:
        keep(args.results, lines, args.seeds, command("reproduce_table3.py", argv, runs.values()), runs)


def recipe_of(cell: str, length: str | None) -> str:
    """The cell's recipe at a length; MetaOptNet's training has its own DropBlock if the cell has DropBlock."""
    parts = [f"table3/{cell}", *([length] if length else [])]
    if length == "metaoptnet" and "dropblock" in cell:
        parts.append("metaoptnet-dropblock")
    return "+".join(parts)


def table(scores: dict[tuple[str, int], np.ndarray]) -> list[list[str]]:
    """Lines of text, one a cell, as HEADER names its columns."""
    lines = []
    for row in ROWS:
        for shots, paper in zip(SHOTS, row.paper, strict=True):
            ours, baseline = scores.get((row.cell(shots), shots)), scores.get((f"{row.baseline}-{shots}shot", shots))
            if ours is not None:
                compared = "" if baseline is None else difference(ours, baseline)
                lines.append([row.title, f"{shots}-shot", f"{paper:.2f}", score(ours), compared])
    return lines


BASELINE = "the same cell without TargetDrop"
HEADER = ("method", "task", "paper", "ours", "difference")


def drawn(lines: list[list[str]]) -> Table:
    drawn = Table(*HEADER, box=box.SIMPLE_HEAD, title="5-way test accuracy (%)", title_justify="left")
    for line in lines:
        drawn.add_row(*line)
    return drawn


def keep(folder: Path, lines: list[list[str]], seeds: int, how: str, runs: dict[str, Run]) -> None:
    """Write table.md, and keep what proves each run: everything but weights."""
    keep_runs(runs.values(), folder)
    title, below = "Table 3 of the TargetDrop paper, theirs and ours", explained(seeds, BASELINE)
    text = f"# {title}\n\n    {how}\n\n{markdown(HEADER, lines)}\n\n{below}\n"
    write_atomic(folder / "table.md", text.encode())


if __name__ == "__main__":
    raise SystemExit(run(main))
