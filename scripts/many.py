"""What the scripts that train many runs share: make, resume or skip each of them; gather and word what they scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewshot import config as configs
from fewshot import train
from fewshot.config import TrainConfig
from fewshot.core.console import Parser, terminal
from fewshot.core.errors import UserError
from fewshot.evaluation.records import read_accuracies
from fewshot.evaluation.statistics import paired_difference, summarise
from fewshot.reports.tables import percent
from fewshot.runs import Run


def train_flags(argv: list[str], taken: dict[str, str]) -> dict[str, Any]:
    """fewshot.train's flags, by field. UserError for one that is `taken`: the script sets it, by the flag named."""
    parser = Parser(prog="fewshot.train")
    configs.add_flags(parser)
    flags = configs.from_json(vars(parser.parse_args(argv)), "the flags")
    for name, ours in taken.items():
        if name in flags:
            raise UserError(f"{configs.flag(name)} {flags[name]}: it differs from run to run here; give {ours}")
    return flags


def complete(config: TrainConfig, out: Path) -> Run:
    """The finished run of `config` in `out`: made, gone on with where it was cut, left alone where it is done.

    UserError where `out` holds another configuration's. All runs share this process, so that Ctrl-C and `kill` reach
    the training loop, which saves its checkpoint.
    """
    console = terminal()
    run = None
    if out.exists():
        run = Run.open(out)
        begun, asked = configs.to_json(run.config), configs.to_json(config)
        for name in begun:
            if begun[name] != asked[name] and name != "data_root":
                flag = configs.flag(name)
                raise UserError(f"{out} began with {flag} {begun[name]}, not {asked[name]}; give another --out")
        if run.finished:
            console.print(f"{out} is done")
            return run
    console.print(f"\n{out}" + " goes on" * (run is not None))
    if config.compile:
        import torch

        torch.compiler.reset()  # torch compiles a function for a handful of networks, and then no more
    return train.train_and_test(config, run, str(out), console)


def accuracies(runs: Sequence[Run], shots: int) -> np.ndarray:
    """(seeds, episodes): what each run scored in each test episode of that number of shots."""
    scored = []
    for each in runs:
        row = next(row for row in each.rows if row["shots"] == shots and row["split"] == "test")
        scored.append(read_accuracies(each.folder, row))
    return np.stack(scored)


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


def explained(seeds: int, compared_with: str) -> str:
    """What the intervals are, below a table."""
    text = (
        "± is the field's 95% interval over test episodes, 1.96 * std / sqrt(n); differences are paired, episode by"
        f" episode, with {compared_with}."
    )
    if seeds == 1:
        return text + " One seed: what training anew would change is not in the intervals."
    return text + f" Means over {seeds} seeds; in brackets each seed's own difference."


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *lines])
