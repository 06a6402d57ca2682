"""Write results/README.md and its figures from the run folders that are kept under results/.

    python scripts/report.py

The same files give the same bytes. The page's words are in scripts/report_parts/page/, a file for each of its parts;
tables and verdicts are put in here. A part whose runs are not there is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from report_parts import again, best, figures, gaps, regimes, table3
from report_parts.effects import Study, read
from report_parts.sections import AGAIN, FEW_SHOT, SECTIONS, TENTH, parts, picture
from report_parts.short import answers, short

from fewshot.core.console import Parser, run
from fewshot.core.files import write_atomic
from fewshot.reports import pictures

PAGE = Path(__file__).parent / "report_parts" / "page"
ORDER = (
    "head", "mini-imagenet-42", "mini-imagenet-42-again", "mini-imagenet-42-tenth", "regimes-42", "best-42",
    "best-42-dropblock", "fashion-mnist", "table3", "files",
)  # fmt: skip


def parser() -> Parser:
    parser = Parser(prog="scripts.report", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER", help="where the runs are")
    return parser


def main(argv: list[str] | None = None) -> None:
    results = parser().parse_args(argv).results
    studies = {section.name: read(results / section.name) for section in SECTIONS}
    done = [section for section in SECTIONS if len(studies[section.name].runs) > 1]
    if FEW_SHOT not in done:
        done = [section for section in done if section is not AGAIN]  # which has more seeds of it
    values: dict[str, dict[str, str]] = {each.name: parts(each, studies[each.name]) for each in done}
    for each in done:
        if each is not AGAIN:  # its table is beside that of the first seeds
            values[each.name]["picture"] = picture(each, studies[each.name], results)
    recipes, more = read(results / "best-42", "recipe"), dict[str, Study]()
    if AGAIN in done:
        more = again.joined(studies[FEW_SHOT.name], studies[AGAIN.name])
        values[AGAIN.name]["together"] = again.table(studies[FEW_SHOT.name], studies[AGAIN.name], more)
    values["head"] = {
        "answers": answers([(each, studies[each.name]) for each in done], recipes, more.get("targetdrop")),
        "short": "\n".join(filter(None, (short(each, studies[each.name]) for each in done))),
    }
    if (supervised := results / "regimes-42").is_dir():
        values["regimes-42"] = regimes.parts(results / FEW_SHOT.name, supervised)
    if recipes.runs:
        values["best-42"] = best.parts(recipes)
        if (regularized := read(results / "best-42-dropblock")).runs:
            values["best-42-dropblock"] = best.regularized(recipes, regularized)
    values["files"] = {}
    if (results / "table3").is_dir():
        values["table3"] = table3.parts(results / "table3")
    if TENTH in done:
        both = {"all images": studies[FEW_SHOT.name], "a tenth": studies[TENTH.name]}
        values[TENTH.name] |= {"against": against_gaps(both, results)}
    page = "\n".join(filled(name, values[name]) for name in ORDER if name in values)
    write_atomic(results / "README.md", page.encode())


def filled(name: str, values: Mapping[str, str]) -> str:
    """A part of the page with its values in their places, `<!-- name -->`."""
    text = (PAGE / f"{name}.md").read_text("utf-8")
    return re.sub("<!-- (.*?) -->", lambda place: values[place[1]], text)


def against_gaps(studies: Mapping[str, Study], results: Path) -> str:
    """Each regularizer's gain beside the gap that a network has without it, as a figure and a table."""
    found = gaps.settings(studies)
    picture = "pictures/gain-against-gap.png"
    if len(found) > 1:
        pictures.save(figures.against_gaps(found), results / picture, dpi=150)
    return f"![Gain against gap]({picture})\n\n" * (len(found) > 1) + gaps.table(found)


if __name__ == "__main__":
    matplotlib.use("agg")
    raise SystemExit(run(main))
