"""Copy what proves the numbers of finished runs: everything in their folders but weights and checkpoints.

    python scripts/keep.py runs/mini-imagenet-42 results/mini-imagenet-42

Of each finished run below the first folder, one of the same name below the second. Runs that are not finished are named
and left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from report_parts.effects import found_runs

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.runs import Run

SMALL_FILES = (
    "config.json", "environment.json", "metrics.jsonl", "episodes-*.npy", "tasks-*.npz", "images-*.np[yz]",
    "result.json",  # which names the files above
)  # fmt: skip


def parser() -> Parser:
    parser = Parser(prog="scripts.keep", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="FROM", help="folder with run folders")
    parser.add_argument("kept", type=Path, metavar="TO", help="folder for the copies")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if not any(args.runs.glob("*/config.json")):
        raise UserError(f"{args.runs}: there is no run folder in it")
    finished, others = found_runs(args.runs)
    keep(finished, args.kept)
    terminal().print(f"{len(finished)} runs kept in {args.kept}")
    for name, why in others.items():
        terminal().print(f"left out: {args.runs / name}: {why}")


def keep(runs: Iterable[Run], folder: Path) -> None:
    """Copies of the runs' small files, each in a folder of its run's name below `folder`."""
    for each in runs:
        copy = folder / each.folder.name
        copy.mkdir(parents=True, exist_ok=True)
        for pattern in SMALL_FILES:
            for file in each.folder.glob(pattern):
                shutil.copyfile(file, copy / file.name)


if __name__ == "__main__":
    raise SystemExit(run(main))
