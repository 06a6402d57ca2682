"""Episodic beside supervised training: what each head makes of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import training_anew
from fewshot.evaluation.statistics import holm
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
    """A line for each training and head: the means over seeds, and what they are more than after episodic training.

    p-values are Holm's over the lines, for each number of shots.
    """
    by_training = {name: scores(runs) for name, runs in trainings(folders).items()}
    episodic = by_training.get(EPISODIC, {})
    shots = sorted({number for each in by_training.values() for _, number in each})
    more = {number: _gains(by_training, episodic, number) for number in shots}
    header = ["training", "head", "seeds"]
    for number in shots:
        header += [f"{number}-shot", "more than episodic"]
    lines = []
    for name, found in by_training.items():
        for head in dict.fromkeys(head for head, _ in found):
            line = [name, head, str(max(len(found.get((head, number), {})) for number in shots))]
            for number in shots:
                line += [mean(list(found.get((head, number), {}).values())), more[number].get((name, head), "")]
            lines.append(line)
    return markdown(header, lines)


def _gains(by_training: Mapping[str, Scores], episodic: Scores, shots: int) -> dict[tuple[str, str], str]:
    """By training and head: the mean difference of equal seeds, with its interval where there are several."""
    texts, intervals = {}, {}
    for name, found in by_training.items():
        for head in {head for head, number in found if number == shots and name != EPISODIC}:
            own, other = found[head, shots], episodic.get((head, shots), {})
            by_seed = {seed: own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())}
            if len(by_seed) > 1:
                intervals[name, head] = training_anew(np.array(list(by_seed.values())))
            for seed, value in by_seed.items():
                texts[name, head] = f"{100 * value:+.2f} (seed {seed} alone)"
    adjusted = holm([each.p_value for each in intervals.values() if each.p_value is not None])
    for (place, found), p_value in zip(intervals.items(), adjusted, strict=True):
        texts[place] = marked(replace(found, p_value=float(p_value)))
    return texts
