"""python -m fewshot.train: train a network, select on validation, evaluate on test, keep the proof."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot import catalogue, recipes
from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core.console import Parser, add_trust, run, summary, terminal
from fewshot.core.crew import Crew, member
from fewshot.core.errors import UserError
from fewshot.core.files import vacant
from fewshot.core.launch import launch
from fewshot.defaults import complete
from fewshot.identity import difference


def parser() -> Parser:
    parser = Parser(prog="fewshot.train", description=summary(__doc__), usage="%(prog)s [options]")
    its = parser.add_argument_group("the run")
    its.add_argument(
        "--out", metavar="FOLDER", default=None,
        help="run folder to make (with --seeds: FOLDER/seed0, ...); without it, a new one under runs/",
    )  # fmt: skip
    its.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a run for each of these seeds, then their mean")
    its.add_argument(
        "--resume", action="store_true",
        help="continue the run in --out exactly where it stopped; if there is none, start it",
    )  # fmt: skip
    its.add_argument(
        "--elsewhere", action="store_true",
        help="with --resume: continue even if this machine cannot train with the run's precision, threads, kind of"
        " device or number of processes; the run records it, and is not pooled with others if its precision or number"
        " of processes has changed",
    )  # fmt: skip
    its.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="processes of this machine that share each step's work, a GPU each if there are GPUs; on several machines"
        " torchrun starts them (docs/several-processes.md)",
    )  # fmt: skip
    its.add_argument(
        "--log", action="append", default=[], metavar="NAME",
        help="also write the metrics for tensorboard or wandb; may be repeated, or separated by commas",
    )  # fmt: skip
    its.add_argument(
        "--profile", nargs="?", type=int, const=5, default=0, metavar="STEPS",
        help="profile this many steps (5 if no number is given): a table of the longest operations, and a trace in the"
        " run folder",
    )  # fmt: skip
    add_trust(its)
    configs.add_flags(parser, {field: catalogue.names(kind) for field, kind in catalogue.FIELDS.items()})
    return parser


def main(argv: list[str] | None = None) -> None:
    with member() as crew:
        _train(argv, crew)


def _train(argv: list[str] | None, crew: Crew) -> None:
    flags = vars(parser().parse_args(argv))
    out, resume, seeds, trust, elsewhere, log, profile, processes = (
        flags.pop(name) for name in ("out", "resume", "seeds", "trust", "elsewhere", "log", "profile", "processes")
    )
    flags = configs.from_json(flags, "the flags")
    if processes < 1:
        raise UserError(f"--processes {processes}: give at least 1")
    if crew.several and processes not in (1, crew.size):
        raise UserError(f"--processes {processes}: torchrun has started {crew.size} already; leave it out")
    if resume and out is None:
        raise UserError("--resume needs --out FOLDER: which run is to go on?")
    if elsewhere and not resume:
        raise UserError("--elsewhere is for a run that goes on: give --resume, too")
    if profile < 0:
        raise UserError(f"--profile {profile}: give a number of steps")
    for name in _duplicates(seeds or []):
        raise UserError(f"--seeds: {name} comes twice; give each seed once")
    if seeds and "seed" in flags:
        raise UserError(f"--seed {flags['seed']}: --seeds says which; leave one of the two out")
    work = [(flags, out)]
    if seeds:
        work = [(flags | {"seed": seed}, out and os.path.join(out, f"seed{seed}")) for seed in seeds]
    if processes > crew.size:
        if status := launch("fewshot.train", sys.argv[1:] if argv is None else argv, processes):
            raise SystemExit(status)
        return
    crew.join()
    plans = crew.tell(lambda: _configurations(work, resume, trust, elsewhere))

    from fewshot import experiment
    from fewshot.learning.reporter import Reporter
    from fewshot.reports.following import loggers
    from fewshot.reports.following.profiling import Profiled
    from fewshot.reports.following.progress import ConsoleReporter
    from fewshot.reports.sweep import print_seeds
    from fewshot.reports.tables import print_run

    console, log = terminal(), loggers.find(log)
    console.quiet = not crew.first
    if seeds and len(seeds) == 1 and 1 < seeds[0] <= 10:  # as one would write it for sweep
        several = " ".join(map(str, range(seeds[0])))
        console.print(f"--seeds {seeds[0]} is one run, of that seed; {seeds[0]} seeds are --seeds {several}.")
    done = []
    for config, why, folder in plans:
        if resume and folder is not None and vacant(Path(folder)):
            console.print(f"{folder} holds no run: this begins one.")
        console.print(f"Data set: {config.dataset} ({why}).")
        if config.recipe == "none" and "recipe" not in flags and config.dataset not in recipes.names():
            console.print(
                f"No recipe is named {config.dataset}: the defaults and your flags make {config.epochs} epochs;"
                " --epochs changes that."
            )
        reporter: Reporter = ConsoleReporter(console, _shorter(config.recipe, config.dataset))
        reporter = loggers.Logged(reporter, log) if log else reporter
        reporter = Profiled(reporter, profile) if profile else reporter
        try:
            done.append(experiment.run(config, folder, reporter, resume=resume, elsewhere=elsewhere, crew=crew))
        except KeyboardInterrupt as interrupt:
            if not seeds or out is None or all(vacant(Path(str(each))) for *_, each in plans):
                raise  # if nothing has begun, --resume would begin something else
            all_seeds = f"--out {out} --seeds {' '.join(map(str, seeds))} --resume"
            raise KeyboardInterrupt(f"{str(interrupt) or 'interrupted'}; with all seeds by {all_seeds}") from None
        if crew.first:
            print_run(console, done[-1])
    if len(done) > 1 and crew.first:
        print_seeds(console, done)


_OF_ITS_RUN = ("seed", "recipe", "init", "precision", "compile", "deterministic")
"""Fields whose written values may differ between the runs of one --seeds. What they resolve to is compared before the
runs are averaged."""


def _configurations(
    work: Sequence[tuple[dict[str, Any], str | None]], resume: bool, trust: list[str], elsewhere: bool
) -> list[tuple[TrainConfig, str, str | None]]:
    """For each (flags, folder): what to train, why on that data set, and in which folder.

    A run that exists continues as it began. One that does not exist yet gets the configuration of those that do, so
    that the runs of one command differ only in the seed. Raises UserError if the flags contradict a run that exists, if
    such runs differ in more than the seed, or if one names code that neither the flags name nor `trust` allows.
    """
    from fewshot.runs import Run  # imports NumPy, and --help need not wait for that

    begun = {folder: flags for flags, folder in work if folder is not None and not vacant(Path(folder))}
    if not resume or not begun:
        found = [(*complete(flags), folder) for flags, folder in work]
        for config, _, folder in found:
            if folder in begun:  # otherwise this would be said only after the seeds before it are trained
                raise Run.taken(folder, config)
        return found
    first = next(iter(begun))
    kept = {folder: _kept(folder, flags, trust, elsewhere) for folder, flags in begun.items()}
    for folder, config in kept.items():
        if name := difference(kept[first], config, _OF_ITS_RUN):
            here, there = (getattr(each, name) for each in (config, kept[first]))
            raise UserError(
                f"{folder} began with {configs.flag(name)} {here}, and {first} with {there}: runs of one --seeds differ"
                " in nothing else; give another --out"
            )
    return [
        (kept[folder], f"as in {folder}", folder)
        if folder in kept
        else (_kept(first, flags, trust, elsewhere, another_seed=True), f"as in {first}", folder)
        for flags, folder in work
    ]


def train_flags(argv: list[str], taken: dict[str, str]) -> dict[str, Any]:
    """The flags of a script that go to training, by field. Raises UserError for one that is `taken`.

    `taken`: by field, what the user gives the script instead.
    """
    parser = Parser(prog="fewshot.train")
    configs.add_flags(parser)
    flags = configs.from_json(vars(parser.parse_args(argv)), "the flags")
    for name, instead in taken.items():
        if name in flags:
            raise UserError(f"{configs.flag(name)} {flags[name]}: it differs from run to run here; give {instead}")
    return flags


def _kept(
    out: str, flags: dict[str, Any], trust: list[str], elsewhere: bool, another_seed: bool = False
) -> TrainConfig:
    """The configuration of the run in `out`, which continues, or is to be repeated with `another_seed`.

    Raises UserError if a flag contradicts it.
    """
    from fewshot.data import dataset_name  # these import NumPy, and --help need not wait for that
    from fewshot.data.store import is_store
    from fewshot.runs import Run

    begun = Run.open(out)
    begun.check_code([*trust, *configs.users_modules(flags)], dataset=True)
    config = begun.config
    given = {name: value for name, value in flags.items() if value != "auto" or name not in ("dataset", "recipe")}
    here = os.environ.get("FEWSHOT_DATA", "")  # for images that were moved, and runs from another machine
    if here and not is_store(Path(config.data_root, config.dataset)) and is_store(Path(here, config.dataset)):
        given.setdefault("data_root", here)
    if "dataset" in given:
        given["dataset"] = dataset_name(given["dataset"], given.get("data_root", config.data_root))
    if "data_root" in given:  # so that the run can be resumed and evaluated from anywhere
        given["data_root"] = os.path.abspath(given["data_root"])
    asked = dataclasses.replace(config, **given)
    if name := difference(config, asked, ("precision",) * elsewhere + ("seed",) * another_seed):
        go_on = "add --elsewhere" if name == "precision" else "leave it out"
        raise UserError(
            f"{configs.flag(name)} {flags[name]} differs from {getattr(config, name)}, with which {out} began;"
            f" {go_on}, or start a new run"
        )
    return dataclasses.replace(asked, init=config.init)  # as it was written


def _duplicates(seeds: list[int]) -> list[int]:
    return [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]


def _shorter(recipe: str, dataset: str) -> str:
    """A shorter way, for those whom the estimate surprises."""
    if recipe.startswith("table3/") and "+" not in recipe:
        return f"Shorter: --recipe {recipe}+quick, or {recipe}+cpu."
    if f"{dataset}-cpu" in recipes.names() and recipe != f"{dataset}-cpu":
        return f"Shorter: --recipe {dataset}-cpu, or --dataset glyphs."
    return "Shorter: fewer --epochs."


if __name__ == "__main__":
    raise SystemExit(run(main))
