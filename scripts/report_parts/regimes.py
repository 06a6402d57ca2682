"""Episodic beside supervised training: what each head makes of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fewshot.evaluation.intervals import training_anew
from fewshot.reports.sweep import markdown
from fewshot.reports.tables import head_name, percent
from fewshot.runs import Run
from report_parts.effects import found_runs

Scores = Mapping[tuple[str, int], Mapping[int, float]]
"""By what solved the tasks and the number of shots, then by seed: test accuracy, a fraction of 1."""


def trainings(folders: Sequence[Path]) -> dict[str, list[Run]]:
    """The finished runs without a regularizer below these folders, by how they were trained."""
    found: dict[str, list[Run]] = {}
    for folder in folders:
        for run in found_runs(folder)[0]:
            if run.config.reg == "none":
                found.setdefault(run.config.regime, []).append(run)
    return found


def scores(runs: Sequence[Run]) -> Scores:
    found: dict[tuple[str, int], dict[int, float]] = {}
    for run in runs:
        for row in run.longest:
            if row["split"] == "test":
                found.setdefault((head_name(row), row["shots"]), {})[run.config.seed] = row["accuracy"]
    return found


def table(folders: Sequence[Path]) -> str:
    """A line for each head, a column for each training and number of shots: the mean over seeds, and its interval."""
    by_training = {name: scores(runs) for name, runs in trainings(folders).items()}
    shots = sorted({number for each in by_training.values() for _, number in each})
    heads = list(dict.fromkeys(head for each in by_training.values() for head, _ in each))
    columns = [(name, number) for name in by_training for number in shots]
    header = ["head", *(f"{name}, {number}-shot" for name, number in columns)]
    lines = [[head, *(_mean(by_training[name].get((head, number), {})) for name, number in columns)] for head in heads]
    return markdown(header, lines)


def _mean(by_seed: Mapping[int, float]) -> str:
    """Over seeds, with Student's interval of training anew where there are several."""
    values = np.array(list(by_seed.values()))
    if len(values) < 2:
        return "".join(f"{100 * value:.2f} (one seed)" for value in values)
    found = training_anew(values)
    return percent(found.estimate, found.half_width)
