"""What each configuration of a study gains over a baseline, from its committed run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import fewshot
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import Answers, adjust
from fewshot.evaluation.intervals import Interval, training_anew
from fewshot.reports.boards.leaderboard import experiment_of
from fewshot.reports.comparisons.difference import Difference, ImageDifference
from fewshot.reports.sweep import Bold
from fewshot.reports.tables import percent, within
from fewshot.runs import Run
from report_parts.pooled import Pooled, Scores, against, pool

SIGNIFICANT = 0.05
TOP1 = "top-1"
DIRTY = "-dirty"


@dataclass(frozen=True)
class Study:
    """Finished runs that differ only in one field and the seed: by that field (the regularizer), then by seed.

    `unfinished`: the folders that cannot be compared, and why: failed, diverged or damaged runs.
    """

    folder: Path
    runs: Mapping[str, Mapping[int, Run]]
    unfinished: Mapping[str, str]

    @cached_property
    def tests(self) -> list[str]:
        """The tests that any of the runs has, in order."""
        return sorted({test for runs in self.runs.values() for run in runs.values() for test in tested(run)})

    @cached_property
    def effects(self) -> list[Effect]:
        """What each regularizer gains over `none`."""
        return gains(self)

    @cached_property
    def pooled(self) -> dict[str, Pooled | None]:
        """The pooled analysis of each test."""
        return {test: pool(scores(self, test)) for test in self.tests}


@dataclass(frozen=True)
class Effect:
    """What a regularizer gains over the baseline in one test: intervals as `fewshot.compare` has them.

    `test`: `1-shot`, or `top-1` of classifiers. p-values are Holm's over all regularizers of the study, for each
    question and test. `each`: the gain of every seed that both have. `pooled`: training anew by the variance of the
    whole study (pooled.py); None if the study has none for it.
    """

    reg: str
    test: str
    each: Mapping[int, float]
    answers: Answers
    pooled: Interval | None = None

    @property
    def seen(self) -> Interval:
        """The narrowest: for few-shot tasks, on this test set; for classifiers, on other images of these classes."""
        answer = self.answers["new images" if self.test == TOP1 else "this test set"]
        assert isinstance(answer, Interval)
        return answer

    def interval(self, question: str) -> Interval | None:
        answer = self.answers[question]
        return answer if isinstance(answer, Interval) else None


def read(folder: Path, varied: str = "reg") -> Study:
    """Every run folder of a study. Intervals of training anew come from the seeds that two regularizers share.

    `varied`: the field that differs; with `recipe`, whatever a recipe sets. Raises UserError if two runs differ in more
    than that and the seed, or in neither.
    """
    finished, unfinished = found_runs(folder)
    runs: dict[str, dict[int, Run]] = {}
    for run in finished:
        by_seed = runs.setdefault(getattr(run.config, varied), {})
        if run.config.seed in by_seed:
            raise UserError(f"{by_seed[run.config.seed].folder} and {run.folder}: one {varied} and seed; keep one")
        if varied != "recipe" and _but_for(varied, run) != _but_for(varied, finished[0]):
            raise UserError(f"{finished[0].folder} and {run.folder} differ in more than {varied} and seed")
        by_seed[run.config.seed] = run
        if run.code_digest != (first := next(iter(by_seed.values()))).code_digest:
            raise UserError(f"{first.folder} and {run.folder} were trained by different code: keep one version's")
    return Study(folder, runs, unfinished)


def _but_for(varied: str, run: Run) -> dict[str, object]:
    return {name: value for name, value in experiment_of(run).items() if name != varied}


def by_label(study: Study) -> dict[str, list[Run]]:
    """The runs of a study, by the value that varies."""
    return {label: list(by_seed.values()) for label, by_seed in study.runs.items()}


def all_runs(study: Study) -> list[Run]:
    return [run for by_seed in study.runs.values() for run in by_seed.values()]


def commits(runs: Mapping[str, Sequence[Run]]) -> str:
    """The commit whose code trained most of the runs, as `git checkout` takes it, and which runs had another one.

    runs: by what they are called if they have another. Also says how many checkouts had changes.
    """
    of_each = [commit(run) for several in runs.values() for run in several]
    counts = Counter(name.removesuffix(DIRTY) for name in of_each)
    if not counts:
        return ""
    usual = counts.most_common(1)[0][0]
    others: dict[str, dict[str, None]] = {}
    for label, several in runs.items():
        for run in several:
            if (name := commit(run).removesuffix(DIRTY)) != usual:
                others.setdefault(name, {})[f"`{label}`"] = None
    changed = sum(name.endswith(DIRTY) for name in of_each)
    dirty = f", in {changed} of {len(of_each)} runs `{DIRTY}`" * bool(changed)
    exceptions = [f"{', '.join(labels)}: {name}" for name, labels in others.items()]
    return f"code of commit {usual}{dirty}" + f" ({'; '.join(exceptions)})" * bool(exceptions)


def commit(run: Run) -> str:
    """The first 7 digits of the commit whose code trained it, and `-dirty` if its checkout had changes."""
    whole = str(run.environment["commit"])
    return whole[:7] + DIRTY * whole.endswith(DIRTY)


def mean(values: Sequence[float]) -> str:
    """In per cent, over seeds, with Student's interval of training anew if there are several; "" for none."""
    if len(values) < 2:
        return "".join(f"{100 * value:.2f}" for value in values)
    found = training_anew(np.array(values))
    return percent(found.estimate, found.half_width)


def signed(gain: Interval) -> str:
    """`+0.52 ± 0.41` points."""
    return "+" * (gain.estimate >= 0) + percent(gain.estimate, gain.half_width)


def marked(gain: Interval) -> str:
    """The same, bold if it is established; with the interval's ends if it is not symmetric."""
    text = signed(gain)
    if not gain.symmetric:
        text = "+" * (gain.estimate >= 0) + within(gain.estimate, (gain.low, gain.high))
    return Bold(text) if established(gain) else text


def established(interval: Interval | None) -> bool:
    return interval is not None and interval.p_value is not None and interval.p_value < SIGNIFICANT


def gained(effect: Effect) -> str:
    """With the interval of training anew, if there are several seeds."""
    anew = effect.interval("training anew")
    return f"{100 * effect.seen.estimate:+.2f} (one seed)" if anew is None else marked(anew)


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
    """Every regularizer against the baseline, test by test; in each the largest gain first."""
    found: dict[str, list[Effect]] = {}
    base = study.runs.get(baseline, {})
    for reg, runs in study.runs.items():
        seeds = sorted(runs.keys() & base.keys())
        if reg == baseline or not seeds:
            continue
        for each in fewshot.difference([runs[seed] for seed in seeds], [base[seed] for seed in seeds]):
            if test := _test(each, runs[seeds[0]].config):
                ours, theirs = (accuracies(study, name, test, seeds) for name in (reg, baseline))
                by_seed = {seed: one - other for seed, one, other in zip(seeds, ours, theirs, strict=True)}
                found.setdefault(test, []).append(Effect(reg, test, by_seed, each.answers))
    effects = []
    for test in sorted(found):
        pooled = against(study.pooled[test], baseline)
        by_gain = sorted(holm_of(found[test]), key=lambda effect: -effect.seen.estimate)
        effects += [replace(effect, pooled=pooled.get(effect.reg)) for effect in by_gain]
    return effects


def scores(study: Study, test: str) -> Scores:
    """The accuracies of the study's runs in one test."""
    found: dict[str, dict[int, float]] = {}
    for reg, runs in study.runs.items():
        found[reg] = {seed: figures[test] for seed, run in runs.items() if test in (figures := tested(run))}
    return {reg: by_seed for reg, by_seed in found.items() if by_seed}


def _test(each: Difference | ImageDifference, config: TrainConfig) -> str:
    """What the runs' own test is called here; "" for any other test that they have."""
    if (each.dataset, each.split) != (config.dataset, "test"):
        return ""
    if isinstance(each, ImageDifference):
        return TOP1
    usual = config.test_ways, config.test_queries, None
    own = (each.ways, each.queries, each.query_alpha) == usual and each.shots in config.test_shots
    return f"{each.shots}-shot" if own else ""


def mcnemar(study: Study, reg: str, baseline: str = "none") -> list[float]:
    """The p-value of McNemar's test against the baseline's network of the same seed, seed by seed; not corrected."""
    runs, base = study.runs[reg], study.runs[baseline]
    found = []
    for seed in sorted(runs.keys() & base.keys()) if reg != baseline else ():
        for each in fewshot.difference(runs[seed], base[seed]):
            if isinstance(each, ImageDifference) and _test(each, runs[seed].config):
                answer = each.answers["new images"]
                assert isinstance(answer, Interval) and answer.p_value is not None
                found.append(answer.p_value)
    return found


def accuracies(study: Study, reg: str, test: str, seeds: Sequence[int] = ()) -> list[float]:
    """The test accuracy of each seed (all seeds, if none is given)."""
    return [tested(study.runs[reg][seed])[test] for seed in seeds or sorted(study.runs[reg])]


def tested(run: Run, split: str = "test") -> dict[str, float]:
    """The accuracy that a run's own head, or its classifier, has in its own test, on a split; by test."""
    found = {f"{row['shots']}-shot": row["accuracy"] for row in run.own(split)}
    for row in run.classification:
        if (row["dataset"], row["split"]) == (run.config.dataset, split):
            found[TOP1] = row["top1"]
    return found


def holm_of(effects: Sequence[Effect]) -> list[Effect]:
    """The same effects of one test, with Holm's p-values over all of them, for each question by itself."""
    answers = adjust({(0, i): dict(effect.answers) for i, effect in enumerate(effects)}, list(effects[0].answers))
    return [replace(effect, answers=answers[0, i]) for i, effect in enumerate(effects)]
