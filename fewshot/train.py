"""python -m fewshot.train: train a network, select on validation, evaluate on test, keep the proof."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from fewshot import config as configs
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from fewshot.runs import Run


def parser() -> Parser:
    parser = Parser(prog="fewshot.train", description=__doc__.split(": ", 1)[1])
    configs.add_flags(parser)
    parser.add_argument("--out", metavar="FOLDER", default=None, help="run folder to make; without it, one under runs/")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly where it stopped")
    return parser


def main(argv: list[str] | None = None) -> None:
    flags = vars(parser().parse_args(argv))
    out, resume = flags.pop("out"), flags.pop("resume")
    flags = configs.from_json(flags, "the flags")
    console = terminal()
    if resume:
        run_folder = _open(out, flags)
        config, why = run_folder.config, f"as in {run_folder.folder}"
        config = dataclasses.replace(config, data_root=flags.get("data_root", config.data_root))
    else:
        config, why = configuration(flags)
        run_folder = None
    console.print(f"Data set: {config.dataset} ({why}).")
    if run_folder is None or not run_folder.finished:
        run_folder = train_and_test(config, run_folder, out, console)

    from fewshot.reports.tables import print_results

    print_results(console, "Test accuracy", run_folder.result["results"])


def configuration(flags: dict) -> tuple[configs.TrainConfig, str]:
    """What the flags ask for, and why it has the data set that it has."""
    root = flags.get("data_root", os.environ.get("FEWSHOT_DATA") or "data")
    dataset, why = _dataset(flags.get("dataset", "auto"), root)
    # Absolute, so that the run can be resumed and evaluated from anywhere.
    return configs.resolve(dataset, flags | {"data_root": os.path.abspath(root)}), why


def train_and_test(config: configs.TrainConfig, run_folder: Run | None, out: str | None, console: Console) -> Run:
    """Begin a run, or go on with one, to its end. Everything that can be wrong is found before a folder is made."""
    import torch

    from fewshot.core import compute
    from fewshot.core.seeding import derive
    from fewshot.data import open_dataset
    from fewshot.episodes import EpisodeSampler, Protocol, frozen
    from fewshot.evaluation.score import score_run
    from fewshot.learning.display import Display, duration
    from fewshot.learning.loop import train
    from fewshot.model import Model, load_run
    from fewshot.runs import Run

    where = compute.choose(config.device, config.precision, config.threads, config.deterministic)
    if config.compile:
        compute.check_compiler()
    dataset = open_dataset(config.dataset, config.data_root)
    EpisodeSampler(dataset["train"], Protocol(config.ways, config.shots, config.queries), config.seed)
    # An hour's training must not end in "too few images", nor in tasks that are not everyone's.
    tests = [Protocol(config.test_ways, shots, config.test_queries) for shots in dict.fromkeys(config.test_shots)]
    selecting = Protocol(config.test_ways, config.val_shots or config.shots, config.test_queries)
    for protocol in (*tests, selecting):
        frozen.standard_tasks(dataset, "val", protocol, config.val_episodes)
    wanted = [frozen.standard_tasks(dataset, "test", protocol, config.test_episodes) for protocol in tests]
    if warning := frozen.pixel_warning(dataset, wanted):
        console.print(f"Warning: {warning}.")
    torch.manual_seed(derive(config.seed, 0, "initialisation"))
    model = Model(config, dataset.image_size, dataset.mean, dataset.std)

    if run_folder is None:
        facts = {
            "fingerprint": dataset.fingerprint, "image_size": dataset.image_size,
            "mean": dataset.mean, "std": dataset.std,
            "parameters": model.parameter_count, "features": model.backbone.features,
            "regularizers": [
                f"site {reg.site.depth}: {reg}" + f" ({reg.remark})" * bool(reg.remark)
                for reg in model.backbone.regularizers
            ],
        }  # fmt: skip
        run_folder = Run.create(config, out, facts)
    elif run_folder.resolved["fingerprint"] != dataset.fingerprint:
        raise UserError(f"{config.dataset} has other pixels now than when {run_folder.folder} began; restore that copy")
    console.print(
        f"{config.backbone} ({model.parameter_count:,} parameters), {config.head} head, regularizer {config.reg};"
        f" recipe {config.recipe}: {config.steps:,} steps of {config.episodes_per_batch}"
        f" {config.ways}-way {config.shots}-shot episodes; {where.device}, {where.precision}.\n"
        f"Run folder: {run_folder.folder}"
    )
    with run_folder.lock():
        run_folder.note_environment(
            device=compute.describe(where.device), precision=where.precision, threads=torch.get_num_threads()
        )
        progress = train(
            run_folder, config, dataset, model.to(where.device), where, Display(console, _shorter(config))
        )
        run_folder.note_environment(train_seconds=round(progress.train_seconds, 1), best_step=progress.best_step)
        console.print(
            f"Trained in {duration(progress.train_seconds)}; best validation {100 * progress.best_accuracy:.2f}%"
            f" at step {progress.best_step}."
        )
        score_run(run_folder, load_run(run_folder, where), dataset, wanted, where)
    return run_folder


def _dataset(name: str, root: str) -> tuple[str, str]:
    """The data set's name, and why it is that one."""
    if name != "auto":
        return name, "asked for"
    from fewshot.data import default_dataset  # which imports NumPy, and --help need not wait for that

    return default_dataset(root)


def _open(out: str | None, flags: dict) -> Run:
    """The run to resume; a flag that contradicts it is refused."""
    from fewshot.runs import Run  # which imports NumPy, and --help need not wait for that

    if out is None:
        raise UserError("--resume needs --out FOLDER: which run is to go on?")
    run_folder = Run.open(out)
    kept = configs.to_json(run_folder.config)
    changed = [name for name, value in flags.items() if name != "data_root" and kept[name] != value]
    if changed:
        name = changed[0]
        raise UserError(
            f"{configs.flag(name)} {flags[name]} differs from {kept[name]}, with which {out} began;"
            " leave it out, or start a new run"
        )
    return run_folder


def _shorter(config: configs.TrainConfig) -> str:
    """A shorter way, for those whom the estimate surprises."""
    if config.recipe.startswith("table3/") and "+" not in config.recipe:
        return f"Shorter: --recipe {config.recipe}+quick, or {config.recipe}+cpu."
    if config.dataset == "mini-imagenet" and config.recipe != "mini-imagenet-cpu":
        return "Shorter: --recipe mini-imagenet-cpu, or --dataset glyphs."
    return "Shorter: fewer --epochs."


if __name__ == "__main__":
    raise SystemExit(run(main))
