"""Episodic beside supervised training: what each head makes of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import training_anew
from fewshot.reports.sweep import markdown
from fewshot.reports.tables import head_name
from fewshot.runs import Run
from report_parts.effects import found_runs, marked, mean

EPISODIC = "episodic"
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
        for row in run.own(any_head=True):
            by_seed = found.setdefault((head_name(row), row["shots"]), {})
            if run.config.seed in by_seed:
                raise UserError(f"{run.folder}: a second run of one training and seed; keep one")
            by_seed[run.config.seed] = row["accuracy"]
    return found


def table(folders: Sequence[Path]) -> str:
    """A line for each training and head: the means over seeds, and what they are more than after episodic training."""
    by_training = {name: scores(runs) for name, runs in trainings(folders).items()}
    episodic = by_training.get(EPISODIC, {})
    shots = sorted({number for each in by_training.values() for _, number in each})
    header = ["training", "head", "seeds"]
    for number in shots:
        header += [f"{number}-shot", "more than episodic"]
    lines = []
    for name, found in by_training.items():
        for head in dict.fromkeys(head for head, _ in found):
            line = [name, head, str(max(len(found.get((head, number), {})) for number in shots))]
            for number in shots:
                own = found.get((head, number), {})
                more = "" if name == EPISODIC else gain(own, episodic.get((head, number), {}))
                line += [mean(list(own.values())), more]
            lines.append(line)
    return markdown(header, lines)


def gain(by_seed: Mapping[int, float], other: Mapping[int, float]) -> str:
    """The mean difference of equal seeds, with its interval where there are several; bold where p < 0.05."""
    values = np.array([by_seed[seed] - other[seed] for seed in sorted(by_seed.keys() & other.keys())])
    if len(values) < 2:
        return "".join(f"{100 * value:+.2f} (one seed)" for value in values)
    return marked(training_anew(values))
