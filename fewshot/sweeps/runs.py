"""The runs of a sweep: each is started, continued if it was cut, or left alone if it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fewshot import experiment
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.files import vacant
from fewshot.data import open_dataset
from fewshot.evaluation.records import read_accuracies
from fewshot.learning import regimes
from fewshot.learning.reporter import SILENT, Reporter
from fewshot.runs import Run


def complete(config: TrainConfig, out: Path, reporter: Reporter = SILENT) -> Run:
    """The finished run of `config` in `out`. Raises UserError if `out` holds another configuration's.

    One that goes on keeps its number of threads, whatever `config` says, so that it comes to the same bits.
    """
    begun = None if vacant(out) else Run.open(out)
    if begun and begun.finished:
        reporter.say(f"{out} is done")
    else:
        reporter.say(f"\n{out}" + " goes on" * bool(begun))
        if begun and begun.sittings:
            config = dataclasses.replace(config, threads=0)  # those of its last sitting
        if config.compile:
            import torch

            torch.compiler.reset()  # torch compiles a function for a handful of networks, and then no more
    return experiment.run(config, out, reporter, resume=True)


def check_tasks(configs: Iterable[TrainConfig]) -> None:
    """UserError if a run would be tested on images instead of tasks, or if its data set is not there."""
    for name, root, regime in dict.fromkeys((config.dataset, config.data_root, config.regime) for config in configs):
        if regimes.classifies(regime, open_dataset(name, root)):
            raise UserError(f"--regime {regime}: on {name} it is tested on images, and these are tables of tasks")


def accuracies(runs: Sequence[Run], shots: int) -> np.ndarray:
    """(seeds, episodes): what each run scored in each episode of its own test with that number of shots.

    Raises UserError if a run has no such test, or if two were tested on different tasks.
    """
    scored, digests = [], set()
    for each in runs:
        row = next((row for row in each.tested() if row["shots"] == shots), None)
        if row is None:
            tasks = f"{shots}-shot test of {each.config.test_episodes:,} tasks"
            raise UserError(f"{each.folder} has no {tasks}: evaluate it so, or give another --out")
        scored.append(read_accuracies(each.folder, row))
        digests.add(row["episodes_digest"])
    if len(digests) > 1:
        raise UserError(f"{runs[0].folder} and others were tested on different tasks: evaluate them alike")
    return np.stack(scored)
