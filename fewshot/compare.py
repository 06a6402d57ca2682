"""python -m fewshot.compare: say in words what runs on the same tasks prove of each other, and what they do not."""

from __future__ import annotations

from pathlib import Path

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError

_MORE = """
Runs whose configurations differ in nothing but the seed are one entry. Entries are ranked, and each is set against the
most accurate, episode by episode, for each protocol (data set, ways, shots, queries) that all were scored under. A
difference is called established where p < 0.05 in a two-sided t-test; of more than two entries, p-values are
Holm's over all pairs, and entries share a rank where the test cannot tell them from the first of that rank.
"""


def parser() -> Parser:
    parser = Parser(prog="fewshot.compare", description=__doc__.split(": ", 1)[1], epilog=_MORE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, of two configurations or more")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.comparison import entries, explained, print_comparison, print_entries, shared_protocols
    from fewshot.runs import Run

    runs = [Run.open(folder) for folder in {Path(folder).resolve(): folder for folder in args.runs}.values()]
    if len(runs) < 2:
        raise UserError(f"{args.runs[0]} is one run: give another to compare it with")
    compared = entries(runs)
    protocols = shared_protocols(compared)
    console = terminal()
    print_entries(console, compared)
    for rows in protocols:
        print_comparison(console, compared, rows)
    console.print(explained(len(compared)))


if __name__ == "__main__":
    raise SystemExit(run(main))
