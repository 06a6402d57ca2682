"""Copy what proves the numbers of finished runs: everything in their folders but weights and checkpoints.

    python scripts/keep.py runs/mini-imagenet-42 results/mini-imagenet-42

Each finished run below the first folder gets a folder of the same name below the second. Runs that are not finished are
named and left out.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from report_parts.effects import found_runs

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.runs import Run

SMALL_FILES = (
    "config.json", "environment.json", "code/**/*.py", "metrics.jsonl",
    "episodes-*.npy", "tasks-*.npz", "images-*.np[yz]", "result.json",  # which names the three before it
)  # fmt: skip


def parser() -> Parser:
    parser = Parser(prog="scripts.keep", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="FROM", help="folder with run folders")
    parser.add_argument("kept", type=Path, metavar="TO", help="folder for the copies")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.runs.resolve() == args.kept.resolve():
        raise UserError(f"{args.kept}: the copies would be the runs themselves; give another folder")
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
        for pattern in SMALL_FILES:
            for file in each.folder.glob(pattern):
                copy = folder / each.folder.name / file.relative_to(each.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(copy, file.read_bytes())


def command(script: str, argv: Sequence[str] | None, runs: Collection[Run]) -> str:
    """The command that trained these runs, with their threads, and the precision if the machine chose it.

    The precision is a comment: as a flag, it would be another configuration than that of the runs that are there.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    threads, precisions = {str(each.config.threads) for each in runs}, {each.precision for each in runs}
    if "--threads" not in given and len(threads) == 1:
        given += ["--threads", *threads]
    line = shlex.join(["python", f"scripts/{script}", *given])
    if {each.config.precision for each in runs} == {"auto"} and len(precisions) == 1:
        used = precisions.pop()
        line += f"  # here in {used}; where that is not the machine's choice, add --precision {used}"
    return line


if __name__ == "__main__":
    raise SystemExit(run(main))
