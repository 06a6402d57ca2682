"""python -m fewshot.list: what there is: components, data sets, recipes, task lists."""

from __future__ import annotations

from fewshot import catalogue
from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import unknown


def parser() -> Parser:
    about = summary(__doc__)
    parser = Parser(prog="fewshot.list", description=about, epilog="fewshot describe NAME tells more.")
    kinds = ", ".join(catalogue.KINDS)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"only these: {kinds}")
    return parser


def main(argv: list[str] | None = None) -> None:
    kinds = parser().parse_args(argv).kinds
    for kind in kinds:
        if kind not in catalogue.KINDS:
            raise unknown("kind", kind, catalogue.KINDS)

    from rich.table import Table

    console = terminal()
    for kind in kinds or catalogue.KINDS:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for entry in catalogue.entries(kind):
            table.add_row(f"  {entry.name}", entry.about)
        console.print(f"{kind}:")
        console.print(table)
        console.print()
    if not kinds:
        console.print("fewshot describe NAME explains each: what it does, its options, their defaults.")


if __name__ == "__main__":
    raise SystemExit(run(main))
