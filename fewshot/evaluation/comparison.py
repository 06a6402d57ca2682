"""Configurations on the same tasks: what each scored and how two differ, for the four questions of `intervals`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TypeAlias, TypeVar

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import Interval, new_classes, new_images, this_test_set, training_anew
from fewshot.evaluation.power import Need, need
from fewshot.evaluation.records import Outcomes, Record
from fewshot.evaluation.statistics import holm

QUESTIONS = ("this test set", "new images", "new classes", "training anew")
_ROUNDING = 1e-20  # a variance of rounding errors; accuracies are fractions of 1
_UNITS = {"new images": "images", "new classes": "classes", "training anew": "seeds"}
Name = TypeVar("Name")
Answers: TypeAlias = "dict[str, Interval | str]"  # by question; a text that says why, if there is no interval


@dataclass(frozen=True)
class Scores(Record):
    """The mean record of a configuration's training seeds, and each seed's own accuracy. Also the difference of two.

    `void`: questions that these tasks cannot answer, and why.
    """

    seeds: Mapping[int, float]
    void: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Mapping[int, Record], void: Mapping[str, str] | None = None) -> Scores:
        """From one record for each training seed, all of the same tasks."""
        every = list(records.values())
        episodes = Outcomes(_mean(each.episodes for each in every), every[0].episodes.classes)
        apart = [each.disjoint for each in every if each.disjoint is not None]
        disjoint = Outcomes(_mean(apart), apart[0].classes) if len(apart) == len(every) else None
        seeds = {seed: float(each.episodes.accuracies.mean()) for seed, each in records.items()}
        return cls(episodes, disjoint, seeds, void or {})

    def __sub__(self, other: Scores) -> Scores:
        disjoint = self.disjoint and other.disjoint and _minus(self.disjoint, other.disjoint)
        seeds = {seed: self.seeds[seed] - other.seeds[seed] for seed in sorted(self.seeds.keys() & other.seeds.keys())}
        void = {**self.void, **other.void}
        if len(seeds) < 2:
            void["training anew"] = too_few(self.seeds, other.seeds)
        return Scores(_minus(self.episodes, other.episodes), disjoint, seeds, void)


def answers(scores: Scores) -> Answers:
    """An interval for each question, or why there is none."""
    episodes, disjoint, again = scores.episodes, scores.disjoint, "not kept by these runs: evaluate again for that"
    found: Answers = dict.fromkeys(QUESTIONS, again)
    found["this test set"] = this_test_set(episodes.accuracies)
    if disjoint is not None and disjoint.classes is not None and len(disjoint.accuracies) > 1:
        found["new images"] = new_images(disjoint.accuracies, disjoint.classes)
    elif disjoint is not None:
        found["new images"] = "nothing is known: the test set has no two tasks that share no image"
    if episodes.classes is not None:
        try:
            found["new classes"] = new_classes(episodes.accuracies, episodes.classes)
        except UserError as error:
            found["new classes"] = f"nothing is known: {error}"
    if len(scores.seeds) > 1:
        found["training anew"] = training_anew(np.array(list(scores.seeds.values())))
    else:
        found["training anew"] = f"nothing is known: {too_few(scores.seeds)}"
    return found | {question: f"nothing is known: {why}" for question, why in scores.void.items()}


def too_few(*each: Collection[int]) -> str:
    """Why nothing is known of training anew, from the seeds of one configuration, or of two."""
    takes = "that takes two training seeds or more, the same for all"
    if max(map(len, each)) < 2:
        return takes
    shared = [str(seed) for seed in each[0] if all(seed in seeds for seeds in each)]
    return f"{takes}; these share {f'seed {shared[0]} alone' if shared else 'none'}"


def differences(scores: Sequence[Scores]) -> dict[tuple[int, int], Answers]:
    """Answers for scores[i] - scores[j], i < j; each question's p-values are Holm-adjusted over all pairs."""
    return adjust({(i, j): answers(scores[i] - scores[j]) for i, j in combinations(range(len(scores)), 2)}, QUESTIONS)


def adjust(found: dict[tuple[int, int], Answers], questions: Sequence[str]) -> dict[tuple[int, int], Answers]:
    """The same answers for all pairs, each question's p-values Holm-adjusted over all of them, answered or not."""
    for question in questions:
        intervals = {pair: it if isinstance(it := each[question], Interval) else None for pair, each in found.items()}
        for pair, interval in corrected(intervals).items():
            found[pair][question] = interval
    return found


def corrected(intervals: Mapping[Name, Interval | None]) -> dict[Name, Interval]:
    """The intervals that there are, p-values Holm-adjusted over all: a missing interval or p-value counts as 1."""
    adjusted = holm([1.0 if each is None or each.p_value is None else each.p_value for each in intervals.values()])
    return {
        name: replace(each, p_value=float(p_value), unadjusted=each.p_value)
        for (name, each), p_value in zip(intervals.items(), adjusted, strict=True)
        if each is not None
    }


def needs(found: Answers, size: float, level: float) -> dict[str, Need | str]:
    """How many images of each class, test classes and training seeds would establish a difference of `size`.

    For the wider questions, with 80% power in a t-test at `level`; a text that says why, if the variance is not known.
    `size`: a fraction of 1, not 0. For new images the units are tasks that share no image, or images for classifiers.
    """
    return {
        question: _need(size, question, answer, level) for question, answer in found.items() if question in _UNITS
    }


def _need(size: float, question: str, answer: Interval | str, level: float) -> Need | str:
    if isinstance(answer, str) or answer.units is None:
        return str(answer)
    if answer.units.variance < _ROUNDING:
        return f"nothing is known: no spread between {_UNITS[question]} was measured"
    return need(size, answer.units, level)


def _mean(outcomes: Iterable[Outcomes]) -> np.ndarray:
    return np.mean([each.accuracies for each in outcomes], axis=0)


def _minus(a: Outcomes, b: Outcomes) -> Outcomes:
    if a.classes is not None and b.classes is not None and not np.array_equal(a.classes, b.classes):
        raise UserError("these are not the same tasks: their classes differ; evaluate all runs again")
    return Outcomes(a.accuracies - b.accuracies, b.classes if a.classes is None else a.classes)
