"""How far networks overfit: how much better they do on what they were trained on than on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from report_parts.effects import Effect, Study, tested


def gaps(study: Study, reg: str, test: str) -> list[float]:
    """Accuracy on the training split less that on the validation split, of each seed that has both; fractions of 1.

    `python -m fewshot.evaluate RUN --split train`, and `--split val`, put the two into a run's folder.
    """
    found = []
    for _, run in sorted(study.runs.get(reg, {}).items()):
        train, val = tested(run, "train"), tested(run, "val")
        if test in train and test in val:
            found.append(train[test] - val[test])
    return found


@dataclass(frozen=True)
class Setting:
    """A training in which regularizers were tried: how far it overfits without one, and what each gained there."""

    title: str
    gap: float
    effects: Sequence[Effect]


def settings(studies: Sequence[tuple[str, Study, Sequence[Effect]]], test: str) -> list[Setting]:
    """Of (title, study, its effects), those whose `none` has gaps, the smallest gap first."""
    found = []
    for title, study, effects in studies:
        if there := gaps(study, "none", test):
            found.append(Setting(title, float(np.mean(there)), [each for each in effects if each.test == test]))
    return sorted(found, key=lambda setting: setting.gap)
