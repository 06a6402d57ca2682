"""What each configuration of a study gains over a baseline, from its committed run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import fewshot
from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import QUESTIONS, Answers
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.statistics import holm
from fewshot.runs import Run

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Study:
    """Finished runs that differ in the regularizer and the seed alone, by regularizer and then by seed.

    `unfinished`: the folders that cannot be compared, and why: failed, diverged or damaged runs.
    """

    folder: Path
    runs: Mapping[str, Mapping[int, Run]]
    unfinished: Mapping[str, str]


@dataclass(frozen=True)
class Effect:
    """What a regularizer gains over the baseline under one protocol: intervals as `fewshot.compare` has them.

    p-values are Holm's over all regularizers of the study, for each question and number of shots. `seeds`: those that
    both have. `plan`: how many more of what would establish the gain, as `compare` says it.
    """

    reg: str
    shots: int
    accuracy: float
    seeds: Sequence[int]
    answers: Answers
    plan: Mapping[str, object]

    @property
    def seen(self) -> Interval:
        """On this test set."""
        answer = self.answers["this test set"]
        assert isinstance(answer, Interval)
        return answer

    def interval(self, question: str) -> Interval | None:
        answer = self.answers[question]
        return answer if isinstance(answer, Interval) else None


def read(folder: Path) -> Study:
    """Every run folder of a study. The seeds that two regularizers share are what tells of training anew."""
    finished, unfinished = found_runs(folder)
    runs: dict[str, dict[int, Run]] = {}
    for run in finished:
        by_seed = runs.setdefault(run.config.reg, {})
        if run.config.seed in by_seed:
            raise UserError(f"{by_seed[run.config.seed].folder} and {run.folder}: one regularizer and seed; keep one")
        by_seed[run.config.seed] = run
    return Study(folder, runs, unfinished)


def found_runs(folder: Path) -> tuple[list[Run], dict[str, str]]:
    """The finished runs in a folder; and the others by name, each with the reason why it has no result."""
    finished, others = [], {}
    for place in sorted(path.parent for path in folder.glob("*/config.json")):
        try:
            run = Run.open(place)
            if not run.finished:
                raise UserError("it has no result: it failed, or is still to be finished")
            finished.append(run)
        except UserError as error:
            others[place.name] = str(error)
    return finished, others


def gains(study: Study, baseline: str = "none") -> list[Effect]:
    """Every regularizer against the baseline, the largest gain on this test set first, for each number of shots."""
    found: dict[int, list[Effect]] = {}
    base = study.runs.get(baseline, {})
    for reg, runs in study.runs.items():
        seeds = sorted(runs.keys() & base.keys())
        if reg == baseline or not seeds:
            continue
        for each in fewshot.difference([runs[seed] for seed in seeds], [base[seed] for seed in seeds]):
            accuracy = float(np.mean(accuracies(study, reg, each.shots, seeds)))
            found.setdefault(each.shots, []).append(
                Effect(reg, each.shots, accuracy, seeds, each.answers, each.needs)
            )
    return [effect for shots in sorted(found) for effect in _corrected(found[shots])]


def accuracies(study: Study, reg: str, shots: int, seeds: Sequence[int] = ()) -> list[float]:
    """The test accuracy of each seed (all seeds, if none is given)."""
    runs = [study.runs[reg][seed] for seed in seeds or sorted(study.runs[reg])]
    return [
        next(row["accuracy"] for row in run.longest if row["shots"] == shots and row["split"] == "test") for run in runs
    ]


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    """The same with Holm's p-values over the effects, for each question by itself."""
    answers = [dict(effect.answers) for effect in effects]
    for question in QUESTIONS:
        tested = [each for each in answers if isinstance(each[question], Interval)]
        for each, p_value in zip(tested, holm([each[question].p_value for each in tested]), strict=True):
            each[question] = replace(each[question], p_value=float(p_value))
    corrected = [replace(effect, answers=each) for effect, each in zip(effects, answers, strict=True)]
    return sorted(corrected, key=lambda effect: -effect.seen.estimate)
