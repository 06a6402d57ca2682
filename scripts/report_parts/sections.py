"""The studies on the page: what each one trains, and the tables that its runs give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshot.evaluation.power import needed
from fewshot.reports import pictures
from fewshot.reports.sweep import markdown
from fewshot.sweeps import grid
from report_parts import claims, figures, gaps
from report_parts.effects import (
    SIGNIFICANT,
    TOP1,
    Effect,
    Study,
    accuracies,
    all_runs,
    by_label,
    commits,
    marked,
    mcnemar,
    mean,
)

SIZES = (0.5, 1.0)
"""Points that a regularizer should at least be worth."""
_NAMED = 12  # runs without a result


@dataclass(frozen=True)
class Section:
    """One study: its folder, what it trains, and the question that its tables answer besides training anew."""

    name: str
    title: str
    besides: str


FEW_SHOT = Section("mini-imagenet-42", "Conv-4 ProtoNet, mini-ImageNet at 42 px", "new classes")
AGAIN = Section("mini-imagenet-42-again", "Conv-4 ProtoNet, mini-ImageNet at 42 px, more seeds", "new classes")
TENTH = Section("mini-imagenet-42-tenth", "Conv-4 ProtoNet, a tenth of mini-ImageNet at 42 px", "new classes")
CLASSIFICATION = Section("fashion-mnist", "ResNet-20, Fashion-MNIST", "new images")
SECTIONS = (FEW_SHOT, AGAIN, TENTH, CLASSIFICATION)


def picture(section: Section, study: Study, results: Path) -> str:
    """A study's forest plot, drawn below `results`, as Markdown; "" if there is nothing to draw."""
    if not study.effects:
        return ""
    place = f"pictures/forest-{section.name}.png"
    title = f"{section.title}, {_seeds(study)}: gains over none, 95% intervals of training anew"
    pictures.save(figures.forest(study.effects, title), results / place, dpi=150)
    return f"![Gains over none, with intervals]({place})"


def parts(section: Section, study: Study) -> dict[str, str]:
    """What the page says about one study, by the part's name."""
    effects, tests, found = study.effects, study.tests, claims.decided(study)
    return {
        "runs": f"{sum(map(len, study.runs.values()))} of {len(planned(study.folder))} planned runs are done"
        f" ({_hours(study):.1f} hours of training by the clock)",
        "seeds": _seeds(study),
        "commits": commits(by_label(study)),
        "gains": "\n\n".join(f"**{test}**\n\n{table(section, study, effects, test)}" for test in tests),
        "overfitting": overfitting(study, tests),
        "last": last_validation(study),
        "claims": claims.table(found),
        "needed": needed_seeds(study, len(found)),
        "apart": apart(study),
        "failed": failed(study),
    }


def apart(study: Study) -> str:
    """The regularizers for which no common variance was assumed."""
    said = {}
    for test, found in study.pooled.items():
        if found is None:
            said[test] = "everything, for there are too few seeds"
        elif "none" in found.apart:
            said[test] = "everything, for `none` itself varies more than the others"
        else:
            said[test] = ", ".join(f"`{reg}`" for reg in found.apart) or "nothing"
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"at {test} {words}" for test, words in said.items())


def last_validation(study: Study) -> str:
    """How many runs were best at their last validation: those might have gained from more training."""
    runs = all_runs(study)
    last = sum(run.environment["best_step"] == run.steps for run in runs)
    return f"{last} of {len(runs)} runs were best at their last validation"


def needed_seeds(study: Study, among: int) -> str:
    """How many seeds of two regularizers would establish differences of some sizes, by the study's pooled variance.

    For one comparison alone, and as one of so many claims.
    """
    lines = []
    several = SIGNIFICANT / max(1, among)
    for test, found in study.pooled.items():
        if found:
            cells = [needed(size / 100, found.units, level=level) for level in (SIGNIFICANT, several) for size in SIZES]
            lines.append((test, f"{100 * found.variance**0.5:.2f}", str(found.freedom), *map(str, cells)))
    header = ("test", "noise of one network (points)", "degrees of freedom")
    sizes = [f"seeds for {size:g} point{'s' * (size != 1)}" for size in SIZES]
    return markdown((*header, *sizes, *(f"{size}, among these claims" for size in sizes)), lines) if lines else ""


def table(section: Section, study: Study, effects: Sequence[Effect], test: str) -> str:
    """Every regularizer's accuracy (for classifiers, the error), its gains over none, and the share that it drops."""
    of_images = test == TOP1
    columns = ("gain, training anew", "all seeds pooled", section.besides)
    shown = {"none": dict.fromkeys(columns, "")}
    for effect in effects:
        if effect.test == test:
            pooled = marked(effect.pooled) if effect.pooled else "-"
            cells = _points(effect, "training anew"), pooled, _points(effect, section.besides)
            shown[effect.reg] = dict(zip(columns, cells, strict=True))
    for reg, cells in shown.items():
        if of_images:
            cells["McNemar's p, seed by seed"] = ", ".join(f"{p:.2g}" for p in mcnemar(study, reg))
        cells["dropped (%)"] = _dropped(study, reg)
    header = ["regularizer", "seeds", "error (%)" if of_images else "accuracy (%)", *shown["none"]]
    return markdown(header, [[reg, *_measured(study, reg, test), *cells.values()] for reg, cells in shown.items()])


def overfitting(study: Study, tests: Sequence[str]) -> str:
    """Training and validation accuracy of each regularizer and their difference, if both were measured."""
    header = ["regularizer"]
    for test in tests:
        header += [f"{test}, training", "validation", "difference"]
    lines = []
    for reg in study.runs:
        line = [reg]
        for test in tests:
            both = gaps.both(study, reg, test)
            trained, validated = (np.mean(each) for each in zip(*both, strict=True)) if both else (np.nan, np.nan)
            line += [f"{100 * each:.2f}" if both else "" for each in (trained, validated, trained - validated)]
        if any(line[1:]):
            lines.append(line)
    lines.sort(key=lambda line: (line[0] != "none", -float(line[-1] or 0)))
    return markdown(header, lines) if lines else ""


def _measured(study: Study, reg: str, test: str) -> tuple[str, str]:
    """How many seeds, and their mean with its interval."""
    each = accuracies(study, reg, test)
    return str(len(each)), mean([1 - accuracy for accuracy in each] if test == TOP1 else each)


def _dropped(study: Study, reg: str) -> str:
    """The share of elements that was set to zero: the mean over all steps and seeds."""
    shares = [row["dropped"] for run in study.runs[reg].values() for row in run.metrics() if "dropped" in row]
    return f"{100 * np.mean(shares):.1f}" if shares else ""


def _hours(study: Study) -> float:
    """Hours of training, for all runs together."""
    return sum(run.environment["train_seconds"] for run in all_runs(study)) / 3600


def _points(effect: Effect, question: str) -> str:
    """A gain in points with its interval; bold if it is established."""
    found = effect.interval(question)
    if found is None:
        return "one seed" if question == "training anew" else "-"
    return marked(found)


def failed(study: Study) -> str:
    """Runs that are planned and have no result here: failed, diverged, or still to be trained."""
    there = {run.folder.name for run in all_runs(study)}
    missing = [name for name in planned(study.folder) if name not in there | study.unfinished.keys()]
    lines = [f"- {name}: {why}" for name, why in study.unfinished.items()]
    if missing:
        names = ", ".join(missing) if len(missing) <= _NAMED else f"{len(missing)} runs"
        lines.append(f"- still to be trained, or not kept: {names}")
    return "\n".join(["Without a result:", "", *lines]) if lines else "Every planned run was finished."


def planned(folder: Path) -> list[str]:
    """The names of the runs that the study's grid asks for."""
    path = folder / "grid.toml"
    return list(grid.points(*grid.read(path))) if path.is_file() else []


def _seeds(study: Study) -> str:
    counts = sorted({len(runs) for runs in study.runs.values()})
    text = " to ".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    return f"{text} seed{'s' * (text != '1')}"
