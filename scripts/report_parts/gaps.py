"""How far networks overfit, and whether regularizers gain more where networks overfit more.

The gap: how much better a network does on what it was trained on than on validation images. `python -m fewshot.evaluate
RUN --split train`, and `--split val`, put the two accuracies into a run's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fewshot.evaluation.comparison import corrected
from fewshot.evaluation.intervals import Interval, training_anew
from fewshot.reports.sweep import markdown
from report_parts.effects import Effect, Study, gained, marked, tested


@dataclass(frozen=True)
class Setting:
    """A training in which regularizers were tried: its gap without one, by test, and what each gained there."""

    title: str
    gap: Mapping[str, float]
    effects: Sequence[Effect]

    def find(self, reg: str, test: str) -> Effect | None:
        return next((each for each in self.effects if (each.reg, each.test) == (reg, test)), None)


def both(study: Study, reg: str, test: str) -> list[tuple[float, float]]:
    """Accuracy on the training and on the validation split, of each seed that has both; fractions of 1."""
    found = []
    for _, run in sorted(study.runs.get(reg, {}).items()):
        train, val = tested(run, "train"), tested(run, "val")
        if test in train and test in val:
            found.append((train[test], val[test]))
    return found


def gaps(study: Study, reg: str, test: str) -> list[float]:
    """The training accuracy minus the validation accuracy, of each seed that has both; fractions of 1."""
    return [train - val for train, val in both(study, reg, test)]


def settings(studies: Mapping[str, Study]) -> list[Setting]:
    """Of the studies (by title), those whose `none` has gaps, with the regularizers that all studies tried."""
    tried = set.intersection(*(set(study.runs) for study in studies.values())) - {"none"}
    found = []
    for title, study in studies.items():
        effects = [effect for effect in study.effects if effect.reg in tried]
        gap = {test: gaps(study, "none", test) for test in sorted({effect.test for effect in effects})}
        if gap and all(gap.values()):
            found.append(Setting(title, {test: float(np.mean(values)) for test, values in gap.items()}, effects))
    return found


def table(found: Sequence[Setting]) -> str:
    """A line for each test and setting: its gap without a regularizer, and what each regularizer gains.

    With two settings, a third line says how much more each gains in the second one.
    """
    regs = sorted({effect.reg for setting in found for effect in setting.effects})
    lines: list[Sequence[str]] = []
    for test in found[0].gap if found else ():
        for setting in found:
            gains_ = (gained(effect) if (effect := setting.find(reg, test)) else "" for reg in regs)
            lines.append((test, setting.title, f"{100 * setting.gap[test]:.2f}", *gains_))
        if len(found) == 2:
            first, second = found
            wider = f"{100 * (second.gap[test] - first.gap[test]):+.2f}"
            more_ = more(first, second, test)
            shown = (marked(more_[reg]) if reg in more_ else "" for reg in regs)
            lines.append((test, f"{second.title}, more than {first.title}", wider, *shown))
    return markdown(("test", "trained on", "training - validation", *regs), lines) if lines else ""


def more(first: Setting, second: Setting, test: str) -> dict[str, Interval]:
    """By regularizer, how much more it gains in the second setting, for training anew; p-values are Holm's over them.

    From each seed's gain in the second setting minus that in the first, for regularizers with several common seeds.
    """
    found = {}
    for effect in second.effects:
        here = first.find(effect.reg, test) if effect.test == test else None
        seeds = sorted(here.each.keys() & effect.each.keys()) if here else []
        if here and len(seeds) > 1:
            found[effect.reg] = training_anew(np.array([effect.each[seed] - here.each[seed] for seed in seeds]))
    return corrected(found)
