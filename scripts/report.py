"""Write results/README.md and its figures from the run folders that are kept under results/.

    python scripts/report.py

The same files give the same bytes. The page's words are in scripts/report_parts/page.md; tables and verdicts are put
in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from report_parts import claims, figures, gaps, regimes
from report_parts.effects import TOP1, Effect, Study, accuracies, gains, marked, mcnemar, mean, read

from fewshot.core.console import Parser, run
from fewshot.core.files import write_atomic
from fewshot.reports import pictures
from fewshot.reports.sweep import markdown
from fewshot.sweeps import grid

PAGE = Path(__file__).parent / "report_parts" / "page.md"
REGIMES = "regimes-42"
GAP = "training - validation"
_NAMED = 12  # runs without a result


@dataclass(frozen=True)
class Section:
    """One study on the page: its folder, what it trains, and the questions that its tables answer, with their words."""

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


def parser() -> Parser:
    parser = Parser(prog="scripts.report", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER", help="where the runs are")
    return parser


def main(argv: list[str] | None = None) -> None:
    results = parser().parse_args(argv).results
    studies = {section.name: read(results / section.name) for section in SECTIONS}
    values = {"regimes": regimes.table([results / FEW_SHOT.name, results / REGIMES])}
    for section in SECTIONS:
        parts = measured(section, studies[section.name], results)
        values |= {f"{section.name} {part}": value for part, value in parts.items()}
    values["overfitting"] = overfitting({"all images": studies[FEW_SHOT.name], "a tenth": studies[TENTH.name]}, results)
    text = PAGE.read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"<!-- {name} -->", value)
    write_atomic(results / "README.md", text.encode())


def measured(section: Section, study: Study, results: Path) -> dict[str, str]:
    """What the page says of one study, by the part's name; its forest plot is drawn below `results`."""
    effects = gains(study)
    tests = sorted({effect.test for effect in effects})
    picture = f"pictures/forest-{section.name}.png"
    if effects:
        title = f"{section.title}, {_seeds(effects)}: 95% intervals"
        pictures.save(figures.forest(effects, title), results / picture, dpi=150)
    return {
        "runs": f"{sum(map(len, study.runs.values()))} of {len(planned(study.folder))} planned runs are done",
        "seeds": _seeds(effects),
        "picture": f"![Gains over none, with intervals]({picture})" * bool(effects),
        "gains": "\n\n".join(f"**{test}**\n\n{table(section, study, effects, test)}" for test in tests),
        "claims": claims_table(study),
        "failed": failed(study),
        "gap": f"*{GAP.capitalize()}*: {section.gap} " * any(_gap(study, reg, tests) for reg in study.runs),
    }


def overfitting(studies: Mapping[str, Study], results: Path) -> str:
    """Each regularizer's gain beside the gap that a network has without it, as a table and a figure."""
    found = gaps.settings(studies)
    picture = "pictures/gain-against-gap.png"
    if len(found) > 1:
        pictures.save(figures.against_gaps(found), results / picture, dpi=150)
    return f"![Gain against gap]({picture})\n\n" * (len(found) > 1) + gaps.table(found)


def table(section: Section, study: Study, effects: Sequence[Effect], test: str) -> str:
    """Every regularizer's accuracy (of classifiers the error), and its gain over none for each question."""
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
    header = ["regularizer", "seeds", "error (%)" if of_images else "accuracy (%)", *shown["none"]]
    return markdown(header, [[reg, *_measured(study, reg, test), *cells.values()] for reg, cells in shown.items()])


def _measured(study: Study, reg: str, test: str) -> tuple[str, str]:
    """How many seeds, and their mean with its interval."""
    each = accuracies(study, reg, test)
    return str(len(each)), mean([1 - accuracy for accuracy in each] if test == TOP1 else each)


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
    lines = [(claim.said, claim.source, test, gain, verdict) for claim, test, gain, verdict in claims.decided(study)]
    return markdown(("claim", "whose", "test", "gain (points)", "here"), lines)


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


def _seeds(effects: Sequence[Effect]) -> str:
    if not effects:
        return "no seeds yet"
    counts = sorted({len(effect.seeds) for effect in effects})
    text = " to ".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    return f"{text} seed{'s' * (text != '1')}"


if __name__ == "__main__":
    matplotlib.use("agg")
    raise SystemExit(run(main))
