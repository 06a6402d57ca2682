"""Write results/README.md and its figures from the run folders that are kept under results/.

    python scripts/report.py

The same files give the same bytes. The page's words are in scripts/report_parts/page.md; tables and verdicts are put
in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from report_parts import claims, figures, regimes
from report_parts.effects import Effect, Study, accuracies, gains, read

from fewshot.core.console import Parser, run
from fewshot.core.files import write_atomic
from fewshot.reports import pictures
from fewshot.reports.sweep import Bold, markdown
from fewshot.reports.tables import percent
from fewshot.sweeps import grid

PAGE = Path(__file__).parent / "report_parts" / "page.md"
_NAMED = 12  # runs without a result
STUDY, REGIMES = "mini-imagenet-42", "regimes-42"


def parser() -> Parser:
    parser = Parser(prog="scripts.report", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER", help="where the runs are")
    return parser


def main(argv: list[str] | None = None) -> None:
    results = parser().parse_args(argv).results
    study = read(results / STUDY)
    effects = gains(study)
    if effects:
        title = f"Conv-4 ProtoNet, mini-ImageNet at 42 px, {_seeds(effects)}: 95% intervals"
        pictures.save(figures.forest(effects, title), results / "pictures" / "forest-42.png", dpi=150)
    values = {
        "runs": str(sum(map(len, study.runs.values()))),
        "seeds": _seeds(effects),
        "gains": "\n\n".join(f"**{shots}-shot**\n\n{table(study, effects, shots)}" for shots in _shots(effects)),
        "claims": claims_table(study),
        "failed": failed(study),
        "regimes": regimes.table([results / STUDY, results / REGIMES]),
    }
    text = PAGE.read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"<!-- {name} -->", value)
    write_atomic(results / "README.md", text.encode())


def table(study: Study, effects: Sequence[Effect], shots: int) -> str:
    """Every regularizer's accuracy, and its gain over none for each question."""
    header = ("regularizer", "seeds", "accuracy", "gain on this test set", "training anew", "new classes")
    lines = [
        (
            effect.reg, str(len(effect.seeds)), f"{100 * effect.accuracy:.2f}", _points(effect, "this test set"),
            _points(effect, "training anew"), _points(effect, "new classes"),
        )
        for effect in effects if effect.shots == shots
    ]  # fmt: skip
    none = accuracies(study, "none", shots)
    return markdown(header, [("none", str(len(none)), f"{100 * sum(none) / len(none):.2f}", "", "", ""), *lines])


def _points(effect: Effect, question: str) -> str:
    """A gain in points with its interval; bold where it is established."""
    found = effect.interval(question)
    if found is None:
        return "one seed" if question == "training anew" else "-"
    text = "+" * (found.estimate >= 0) + percent(found.estimate, found.half_width)
    assert found.p_value is not None
    return Bold(text) if found.p_value < claims.SIGNIFICANT else text


def claims_table(study: Study) -> str:
    lines = [
        (claim.said, claim.source, f"{shots}-shot", gain, verdict)
        for claim, shots, gain, verdict in claims.decided(study)
    ]
    return markdown(("claim", "whose", "tasks", "gain", "here"), lines)


def failed(study: Study) -> str:
    """Runs that are planned and have no result here: failed, diverged, or still to be trained."""
    there = {run.folder.name for runs in study.runs.values() for run in runs.values()}
    missing = [name for name in planned(study.folder) if name not in there]
    lines = [f"- {name}: {why}" for name, why in study.unfinished.items()]
    if missing:
        names = ", ".join(missing) if len(missing) <= _NAMED else f"{len(missing)} runs"
        lines.append(f"- still to be trained, or not kept: {names}")
    return "\n".join(["Without a result:", "", *lines]) if lines else "No planned run failed or diverged."


def planned(folder: Path) -> list[str]:
    """The names of the runs that the study's grid asks for."""
    path = folder / "grid.toml"
    return list(grid.points(*grid.read(path))) if path.is_file() else []


def _shots(effects: Sequence[Effect]) -> list[int]:
    return sorted({effect.shots for effect in effects})


def _seeds(effects: Sequence[Effect]) -> str:
    counts = sorted({len(effect.seeds) for effect in effects})
    text = " to ".join(map(str, (counts[0], counts[-1]) if len(counts) > 1 else counts))
    return f"{text} seed{'s' * (text != '1')}"


if __name__ == "__main__":
    matplotlib.use("agg")
    raise SystemExit(run(main))
