"""Which trainings one picture of curves shows, and what its lines are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fewshot.identity import digest
from fewshot.reports.boards.leaderboard import experiment_of
from fewshot.reports.pictures import Group, read_curves, run_labels
from fewshot.runs import Run


def grouped(runs: Sequence[Run]) -> tuple[str, list[Group]]:
    """The picture's heading, and a line for each configuration: seeds together, unfinished runs marked.

    Raises UserError if a run has logged nothing, or is damaged.
    """
    configs = [each.config for each in runs]
    groups = _by_configuration(runs)
    shown = [group[0].config for group in groups]
    if any(len(group) > 1 for group in groups):  # then no label names a seed
        shown = [replace(config, seed=0) for config in shown]
    labels = run_labels(shown, [str(group[0].folder) for group in groups])
    drawn = []
    for label, group in zip(labels, groups, strict=True):
        curves = [read_curves(run) for run in group]
        if len(group) > 1:
            label += f", mean of {len(group)} seeds"
        late = [(run, its) for run, its in zip(group, curves, strict=True) if not run.trained]
        if late:
            steps = ", ".join(f"{its.last_step} of {run.steps}" for run, its in late)
            label += f" (unfinished: step {steps})"
        drawn.append(Group(label, curves))
    names = ", ".join(dict.fromkeys(config.dataset for config in configs))
    return f"{names}: training of {', '.join(dict.fromkeys(config.backbone for config in configs))}", drawn


def _by_configuration(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed, together; if a seed comes twice, as in a copy, each run by itself."""
    groups: dict[str, list[Run]] = {}
    for each in runs:
        groups.setdefault(digest([experiment_of(each), each.code_digest]), []).append(each)
    together = []
    for group in groups.values():
        distinct = len({each.config.seed for each in group}) == len(group)
        together += [group] if distinct else [[each] for each in group]
    return together
