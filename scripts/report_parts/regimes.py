"""Episodic beside supervised training: what each head makes of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import fewshot
from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import corrected
from fewshot.evaluation.intervals import Interval
from fewshot.reports.comparisons.difference import Difference
from fewshot.reports.sweep import markdown
from fewshot.reports.tables import head_name
from fewshot.runs import Run
from report_parts.effects import commits, found_runs, marked, mean

EPISODIC = "episodic"
Scores = Mapping[tuple[str, int], Mapping[int, float]]
"""By what solved the tasks and the number of shots, then by seed: test accuracy, a fraction of 1."""


def parts(episodic: Path, supervised: Path) -> dict[str, str]:
    """What the page says about the two folders' runs."""
    return {"table": table([episodic, supervised]), "commits": commits(trainings([supervised]))}


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
    """A line for each training and head: the means over seeds, and how much more they are than episodic training's.

    p-values are Holm's over the lines, for each number of shots.
    """
    trained = trainings(folders)
    by_training = {name: scores(runs) for name, runs in trained.items()}
    shots = sorted({number for each in by_training.values() for _, number in each})
    more = {number: _gains(trained, number) for number in shots}
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


def _gains(trained: Mapping[str, Sequence[Run]], shots: int) -> dict[tuple[str, str], str]:
    """By training and head: its gain over episodic training, by equal seeds, with an interval if there are several."""
    texts, intervals = {}, {}
    episodic = trained.get(EPISODIC, [])
    for name, runs in trained.items():
        for head in {head for head, number in scores(runs) if number == shots and name != EPISODIC}:
            own, other = (_solved(each, head, shots) for each in (runs, episodic))
            seeds = sorted(own.keys() & other.keys())
            if not seeds:
                continue
            found = fewshot.difference([own[seed] for seed in seeds], [other[seed] for seed in seeds], head=head)
            (same,) = (each for each in found if isinstance(each, Difference) and each.shots == shots)
            anew = same.answers["training anew"]
            if isinstance(anew, Interval):
                intervals[name, head] = anew
            else:
                seen = same.answers["this test set"]
                assert isinstance(seen, Interval)
                texts[name, head] = f"{100 * seen.estimate:+.2f} (seed {seeds[0]} alone)"
    return texts | {place: marked(interval) for place, interval in corrected(intervals).items()}


def _solved(runs: Sequence[Run], head: str, shots: int) -> dict[int, Run]:
    """By seed, the runs whose tasks of `shots` shots this head solved."""
    return {run.config.seed: run for run in runs if (head, shots) in scores([run])}
