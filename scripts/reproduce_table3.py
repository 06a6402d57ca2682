"""Train the few-shot table of the TargetDrop paper (its table 3), and print the paper's beside ours.

    python scripts/reproduce_table3.py --quick --seeds 3 --cells proto-conv4

Each cell is a recipe (`table3/CELL`), each run a folder that is skipped when it is done and resumed when it was cut,
so the command can be repeated until everything is there. Flags that are not listed here go to fewshot.train:
--data-root, --device, --threads, and whatever else is to be the same for every cell.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from fewshot import config as configs
from fewshot.cli import Parser, people, run
from fewshot.errors import UserError
from fewshot.evaluation.statistics import paired_difference, summarise
from fewshot.files import write_atomic
from fewshot.reports.tables import percent
from fewshot.runs import Run

SHOTS = (1, 5)
SMALL_FILES = ("config.json", "environment.json", "metrics.jsonl", "result.json", "episodes-*.npy")


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
        about = (configs.RECIPES / "table3" / f"{name}.toml").read_text().splitlines()[0].rpartition(": ")[2]
        length.add_argument(f"--{name}", dest="length", action="store_const", const=name, help=about)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train each cell with seeds 0 .. N-1")
    parser.add_argument("--cells", nargs="+", default=[""], metavar="CELL", help="those whose names begin so")
    parser.add_argument("--out", type=Path, default=Path("runs/table3"), metavar="FOLDER", help="of the run folders")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep the table and the runs' small files there")
    return parser


def main(argv: list[str] | None = None) -> None:
    args, flags = parser().parse_known_args(argv)
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give at least 1")
    cells = [cell for cell in CELLS if cell.startswith(tuple(args.cells))]
    if not cells:
        raise UserError(f"--cells {' '.join(args.cells)}: no cell begins so; there are {', '.join(CELLS)}")
    suffix = f"+{args.length}" if args.length else ""
    folder = args.out / (args.length or "literal")
    runs = {}
    for seed in range(args.seeds):  # seed by seed, so that comparisons come first and repeats after them
        for cell in cells:
            runs[cell, seed] = train(folder / f"{cell}-seed{seed}", f"table3/{cell}{suffix}", seed, flags)
    scores = {
        (cell, shots): accuracies([runs[cell, seed] for seed in range(args.seeds)], shots)
        for cell in cells
        for shots in SHOTS
        if cell.endswith(f"-{shots}shot")
    }
    lines = table(scores)
    people().print(drawn(lines))
    people().print(explained(args.seeds))
    if args.results:
        command = "python scripts/reproduce_table3.py " + " ".join(sys.argv[1:] if argv is None else argv)
        keep(args.results, lines, args.seeds, command, runs)


def train(out: Path, recipe: str, seed: int, flags: list[str]) -> Run:
    """Train, resume or skip one run, in a process of its own."""
    if (out / "config.json").is_file() and Run.open(out).finished:
        people().print(f"{out} is done")
        return Run.open(out)
    resume = ["--resume"] if out.exists() else []
    arguments = ["--recipe", recipe, "--seed", str(seed), "--out", str(out), *flags, *resume]
    people().print("\npython -m fewshot.train " + " ".join(arguments))
    status = subprocess.run([sys.executable, "-m", "fewshot.train", *arguments]).returncode
    if status:
        raise SystemExit(status)  # it has said why
    return Run.open(out)


def accuracies(runs: list[Run], shots: int) -> np.ndarray:
    """(seeds, episodes): what each run scored in each test episode of its own number of shots."""
    scored = []
    for each in runs:
        row = next(row for row in each.result["results"] if row["shots"] == shots and row["split"] == "test")
        scored.append(np.load(each.folder / row["episodes_file"]).astype(np.float64))
    return np.stack(scored)


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


def score(ours: np.ndarray) -> str:
    """Mean over seeds, and the interval over episodes of that mean."""
    summary = summarise(ours.mean(0))
    return percent(summary.accuracy, summary.ci95)


def difference(ours: np.ndarray, baseline: np.ndarray) -> str:
    """Paired over episodes, seeds averaged; with several seeds also each seed's own difference."""
    summary = paired_difference(ours.mean(0), baseline.mean(0))
    text = f"{100 * summary.accuracy:+.2f} ± {100 * summary.ci95:.2f}"
    if len(ours) > 1:
        text += " (" + ", ".join(f"{100 * each:+.2f}" for each in ours.mean(1) - baseline.mean(1)) + ")"
    return text


HEADER = ("method", "task", "paper", "ours", "difference")


def drawn(lines: list[list[str]]) -> Table:
    drawn = Table(*HEADER, box=box.SIMPLE_HEAD, title="5-way test accuracy (%)", title_justify="left")
    for line in lines:
        drawn.add_row(*line)
    return drawn


def explained(seeds: int) -> str:
    """What the intervals are, below the table."""
    text = (
        "± is the field's 95% interval over test episodes, 1.96 * std / sqrt(n); differences are paired, episode by"
        " episode, with the same cell without TargetDrop."
    )
    if seeds == 1:
        return text + " One seed: what training anew would change is not in the intervals."
    return text + f" Means over {seeds} seeds; in brackets each seed's own difference."


def keep(folder: Path, lines: list[list[str]], seeds: int, command: str, runs: dict[tuple[str, int], Run]) -> None:
    """table.md, and of each run what proves it: everything but weights."""
    for each in runs.values():
        copy = folder / each.folder.name
        copy.mkdir(parents=True, exist_ok=True)
        for pattern in SMALL_FILES:
            for file in each.folder.glob(pattern):
                shutil.copyfile(file, copy / file.name)
    rows = [HEADER, ["---"] * len(HEADER), *lines]
    markdown = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text = f"# Table 3 of the TargetDrop paper, theirs and ours\n\n    {command}\n\n{markdown}\n\n{explained(seeds)}\n"
    write_atomic(folder / "table.md", text.encode())


if __name__ == "__main__":
    raise SystemExit(run(main))
