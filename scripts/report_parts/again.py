"""Regularizers of a study that were trained again with more seeds: the first seeds, the new ones, and all of them."""

from __future__ import annotations

from collections.abc import Mapping

from fewshot.core.errors import UserError
from fewshot.reports.sweep import Bold, markdown
from report_parts.effects import Study, established, signed


def joined(first: Study, again: Study) -> dict[str, Study]:
    """By regularizer: it and `none`, with the seeds of both studies.

    Raises UserError if both have a seed, or (in `effects`) if different code trained them.
    """
    runs = {}
    for name, late in again.runs.items():
        early = first.runs.get(name, {})
        if twice := sorted(early.keys() & late.keys()):
            raise UserError(f"{late[twice[0]].folder}: {first.folder} has this seed, too; keep one")
        runs[name] = {**early, **late}
    whole = Study(again.folder, runs, {})
    return {reg: _only(whole, reg) for reg in runs if reg != "none"}


def table(first: Study, again: Study, together: Mapping[str, Study]) -> str:
    """A line for each regularizer and test: its gain over `none` by the first seeds, by the new ones, and by all.

    together: as `joined` gives it. p-values are Holm's over all regularizers of a study, as in its own table. All seeds
    have none: the new ones were trained because the first had not decided.
    """
    header = ["regularizer", "test", "first seeds", "new seeds", "all seeds"]
    lines = []
    for reg, whole in together.items():
        for test in whole.tests:
            apart = (_gain(study, reg, test) for study in (first, again))
            lines.append([reg, test, *apart, _gain(whole, reg, test, tested=False)])
    return markdown(header, lines)


def _only(study: Study, reg: str) -> Study:
    return Study(study.folder, {name: study.runs[name] for name in ("none", reg)}, {})


def _gain(study: Study, reg: str, test: str, tested: bool = True) -> str:
    """`+0.12 ± 0.34 (3 seeds, p = 0.2)`."""
    (effect,) = (effect for effect in study.effects if (effect.reg, effect.test) == (reg, test))
    anew = effect.interval("training anew")
    if anew is None:
        return "one seed"
    seeds = f"{len(effect.each)} seeds"
    said = f"{signed(anew)} ({seeds}, p = {anew.p_value:.2g})" if tested else f"{signed(anew)} ({seeds})"
    return Bold(said) if tested and established(anew) else said
