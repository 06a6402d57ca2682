"""python -m fewshot.sweep: train every configuration of a grid, several at once, and compare the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot import config as configs
from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError
from fewshot.identity import HOW, digest
from fewshot.sweeps import grid, launch

if TYPE_CHECKING:
    from fewshot.sweeps.folder import Sweep

_MORE = """
Every other flag is one of `fewshot train`, and holds for all runs. A run is known by its configuration: runs that are
done are left alone, runs that were cut go on, and the same sweep may be started twice at once. Below --out there is a
run folder for each, logs/ with what they printed, and at the end leaderboard.csv (of classifiers
leaderboard-classification.csv).
"""


def parser() -> Parser:
    usage = "%(prog)s [GRID.toml] [options]"
    parser = Parser(prog="fewshot.sweep", description=summary(__doc__), epilog=_MORE, usage=usage)
    parser.add_argument("grid", nargs="?", metavar="GRID.toml", help="a file with the values, and [vary] below them")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="FIELD=VALUE,VALUE",
        help="a field of the configuration and its values, such as reg=none,targetdrop; values that contain commas are"
        " separated by |; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=None, metavar="N", help="seeds of each configuration: 0 .. N - 1 (default: 1)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="the sweep's folder; without it, one under runs/sweeps")
    launch.add_flags(parser)
    configs.add_flags(parser)
    return parser


_OWN = ("grid", "vary", "seeds", "out")


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    flags = {name: value for name, value in vars(args).items() if name not in (*_OWN, *launch.FLAGS)}
    shared, vary, seeds = grid.read(Path(args.grid)) if args.grid else ({}, {}, None)
    flagged: dict[str, list[Any]] = {}
    for field, its in map(grid.parse_vary, args.vary):
        if field in flagged:
            raise UserError(f"--vary {field} is given twice: write all values in one, {field}=A,B")
        flagged[field] = its
    vary |= flagged
    if args.seeds is not None and args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: give a number from 1 on")
    seeds = args.seeds if args.seeds is not None else seeds
    if not vary and (seeds or 1) == 1:
        raise UserError("nothing varies: give --vary FIELD=VALUE,VALUE, or --seeds N")
    launch.check(args)
    values = configs.from_json({**shared, **flags}, "the flags")
    if "threads" not in values and "threads" not in vary:
        values |= launch.threads(args, values.get("device", "auto"))
    plan = grid.points(values, vary, seeds)

    from fewshot.sweeps.folder import Sweep

    folder = Path(args.out) if args.out else _default_folder(plan, vary)
    if args.executor == "local":  # other machines may see other folders
        grid.check_at_hand(Sweep(folder, plan).left().values())
    sweep = Sweep.make(folder, plan)
    failed = launch.train(sweep, args, terminal())
    _report(sweep, failed)
    launch.check_all_done(sweep, failed)


def _default_folder(plan: dict[str, Any], vary: dict[str, list[Any]]) -> Path:
    """The same folder for the same runs, however they are trained; another for another data root, with other images."""
    about = "-".join([next(iter(plan.values())).dataset, *vary])
    aside = set(HOW) - {"data_root"}
    runs = {name: configs.to_json(config) for name, config in plan.items()}
    trained = {name: {field: values[field] for field in values if field not in aside} for name, values in runs.items()}
    return Path("runs", "sweeps", f"{about}-{digest(trained)}")


def _report(sweep: Sweep, failed: dict[str, str]) -> None:
    """Rank and compare the runs that are done, and name those that failed."""
    from fewshot.core.files import write_atomic
    from fewshot.reports.boards import as_csv, as_text
    from fewshot.reports.boards.gathering import gather
    from fewshot.reports.boards.leaderboard import aggregate, of_kind
    from fewshot.reports.boards.of_images import IMAGES
    from fewshot.reports.boards.of_tasks import FEWSHOT
    from fewshot.reports.boards.ranking import rank
    from fewshot.reports.boards.standing import merge, newest, on_common_tasks
    from fewshot.reports.comparisons import comparison

    console = terminal()
    if len(failed) < len(sweep.plan):
        gathered, damaged = gather(sweep.folder)
        scores, replaced = newest(merge(gathered))
        scores, elsewhere = on_common_tasks(scores)
        rows = rank(aggregate(scores, over_seeds=True), paired=True)
        for kind, name in ((FEWSHOT, "leaderboard.csv"), (IMAGES, "leaderboard-classification.csv")):
            if some := of_kind(kind, rows):
                write_atomic(sweep.folder / name, as_csv.render(kind, some).encode())
        as_text.print_board(console, rows)
        for name, why in damaged.items():
            console.print(f"warning: {name} is left out: {why}")
        as_text.print_doubts(console, gathered, scores)
        as_text.print_left_out(console, replaced, elsewhere, sweep.folder)
        counted = {score.own["run"]: score.experiment for score in scores if score.own["run"] in sweep.plan}
        if len(set(counted.values())) > 1:
            try:
                comparison.print_all(console, [str(sweep.path(name)) for name in sweep.plan if name in counted])
            except UserError as error:  # the runs are done nevertheless
                console.print(f"Not compared: {error}.")
        _warn_of_changed_code(sweep, [name for name in sweep.plan if name not in failed])
    for name, why in failed.items():
        console.print(f"failed: {name}: {why}")


def _warn_of_changed_code(sweep: Sweep, done: Sequence[str]) -> None:
    """Warn of runs trained before the user edited the code that they name: they are not trained again."""
    from fewshot.runs import Run

    earlier = {name: changed for name in done if (changed := Run.open(sweep.path(name)).changed_code)}
    for changed in dict.fromkeys(earlier.values()):
        names = ", ".join(name for name, its in earlier.items() if its == changed)
        terminal().print(
            f"Warning: {changed} has changed since these were trained, and their results are from the old code:"
            f" {names}. To train them with the new code, give another --out."
        )


if __name__ == "__main__":
    raise SystemExit(run(main))
