"""The studies on the page: what each one trains, and the tables that its runs give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    commits,
    gains,
    marked,
    mcnemar,
    mean,
    tested,
)

GAP = "training - validation"
_NAMED = 12  # runs without a result


@dataclass(frozen=True)
class Section:
    """One study: its folder, what it trains, and the questions that its tables answer, with their words."""

    name: str
    title: str
    questions: Mapping[str, str]
    gap: str
    """What the gap between training and validation is here, said where it was measured."""


FEW_SHOT = Section(
    "mini-imagenet-42",
    "Conv-4 ProtoNet, mini-ImageNet at 42 px",
    {
        "this test set": "gain on this test set",
        "training anew": "training anew",
        "new classes": "new classes",
    },
    "the accuracy on 10,000 tasks of the training images less that on tasks of the validation classes. The two splits"
    " have different classes, so the value is not 0 without overfitting. Compare rows with each other.",
)
TENTH = Section(
    "mini-imagenet-42-tenth",
    "Conv-4 ProtoNet, a tenth of mini-ImageNet at 42 px",
    FEW_SHOT.questions,
    FEW_SHOT.gap,
)
CLASSIFICATION = Section(
    "fashion-mnist",
    "ResNet-20, Fashion-MNIST",
    {"new images": "gain on new images", "training anew": "training anew"},
    "top-1 accuracy on the training images less that on the validation images.",
)
SECTIONS = (FEW_SHOT, TENTH, CLASSIFICATION)


def parts(section: Section, study: Study, results: Path) -> dict[str, str]:
    """What the page says of one study, by the part's name; its forest plot is drawn below `results`."""
    effects = gains(study)
    tests = sorted({test for reg in study.runs for run in study.runs[reg].values() for test in tested(run)})
    picture = f"pictures/forest-{section.name}.png"
    if effects:
        title = f"{section.title}, {_seeds(study)}: 95% intervals"
        pictures.save(figures.forest(effects, title), results / picture, dpi=150)
    return {
        "runs": f"{sum(map(len, study.runs.values()))} of {len(planned(study.folder))} planned runs are done"
        f" ({_hours(study):.1f} hours of training on one core)",
        "seeds": _seeds(study),
        "commits": commits(study),
        "picture": f"![Gains over none, with intervals]({picture})" if effects else "",
        "gains": "\n\n".join(f"**{test}**\n\n{table(section, study, effects, test)}" for test in tests),
        "claims": claims_table(study),
        "failed": failed(study),
        "gap": f"*{GAP.capitalize()}*: {section.gap} " * any(_gap(study, reg, tests) for reg in study.runs),
    }


def short(section: Section, study: Study) -> str:
    """What the study establishes of training anew, in a line for each test."""
    found = gains(study)
    lines = []
    for test in sorted({effect.test for effect in found}):
        by_word: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": [], "one seed only": []}
        for effect in found:
            if effect.test == test:
                by_word[_word(effect)].append(effect.reg)
        better, worse, open_, single = by_word.values()
        said = [f"better than `none`: {_codes(better)}", f"worse: {_codes(worse)}"]
        said += [f"not told apart from `none`: {len(open_)}"] * bool(open_)
        said += [f"with one seed, which tells nothing: {len(single)}"] * bool(single)
        lines.append(f"- **{section.title}, {test}.** Established of training anew, {'; '.join(said)}.")
    return "\n".join(lines)


def _word(effect: Effect) -> str:
    anew = effect.interval("training anew")
    if anew is None or anew.p_value is None:
        return "one seed only"
    if anew.p_value >= SIGNIFICANT:
        return "not told apart"
    return "better" if anew.estimate > 0 else "worse"


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def table(section: Section, study: Study, effects: Sequence[Effect], test: str) -> str:
    """Every regularizer's accuracy (of classifiers the error), its gains over none, and the share that it drops."""
    of_images = test == TOP1
    shown = {"none": dict.fromkeys(section.questions.values(), "")}
    for effect in effects:
        if effect.test == test:
            shown[effect.reg] = {words: _points(effect, asked) for asked, words in section.questions.items()}
    gap = {reg: _gap(study, reg, [test]) for reg in shown}
    for reg, cells in shown.items():
        if any(gap.values()):
            cells[GAP] = gap[reg]
        if of_images:
            cells["McNemar's p, seed by seed"] = ", ".join(f"{p:.2g}" for p in mcnemar(study, reg))
        cells["dropped (%)"] = _dropped(study, reg)
    header = ["regularizer", "seeds", "error (%)" if of_images else "accuracy (%)", *shown["none"]]
    return markdown(header, [[reg, *_measured(study, reg, test), *cells.values()] for reg, cells in shown.items()])


def _measured(study: Study, reg: str, test: str) -> tuple[str, str]:
    """How many seeds, and their mean with its interval."""
    each = accuracies(study, reg, test)
    return str(len(each)), mean([1 - accuracy for accuracy in each] if test == TOP1 else each)


def _dropped(study: Study, reg: str) -> str:
    """The share of elements that was set to zero: the mean over all steps and seeds."""
    shares = [row["dropped"] for run in study.runs[reg].values() for row in run.metrics() if "dropped" in row]
    return f"{100 * np.mean(shares):.1f}" if shares else ""


def _hours(study: Study) -> float:
    """Of training, of all runs together."""
    return sum(run.environment["train_seconds"] for runs in study.runs.values() for run in runs.values()) / 3600


def _gap(study: Study, reg: str, tests: Sequence[str]) -> str:
    """The mean over seeds in the first of these tests in which it was measured; "" where it was in none."""
    found = [gap for test in tests if (gap := gaps.gaps(study, reg, test))]
    return f"{100 * np.mean(found[0]):.2f}" if found else ""


def _points(effect: Effect, question: str) -> str:
    """A gain in points with its interval; bold where it is established."""
    found = effect.interval(question)
    if found is None:
        return "one seed" if question == "training anew" else "-"
    return marked(found)


def claims_table(study: Study) -> str:
    found = claims.decided(study)
    header = ("claim", "whose", "test", "gain (points)", "here")
    return markdown(
        header, [(each.said, each.claim.source, each.effect.test, each.gain, each.verdict) for each in found]
    )


def failed(study: Study) -> str:
    """Runs that are planned and have no result here: failed, diverged, or still to be trained."""
    there = {run.folder.name for runs in study.runs.values() for run in runs.values()}
    missing = [name for name in planned(study.folder) if name not in there | study.unfinished.keys()]
    lines = [f"- {name}: {why}" for name, why in study.unfinished.items()]
    if missing:
        names = ", ".join(missing) if len(missing) <= _NAMED else f"{len(missing)} runs"
        lines.append(f"- still to be trained, or not kept: {names}")
    return "\n".join(["Without a result:", "", *lines]) if lines else "No planned run failed or diverged."


def planned(folder: Path) -> list[str]:
    """The names of the runs that the study's grid asks for."""
    path = folder / "grid.toml"
    return list(grid.points(*grid.read(path))) if path.is_file() else []


def _seeds(study: Study) -> str:
    counts = sorted({len(runs) for runs in study.runs.values()})
    text = " to ".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    return f"{text} seed{'s' * (text != '1')}"
