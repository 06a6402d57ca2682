"""python -m fewshot.leaderboard: gather the results of many runs into one ranked CSV."""

from __future__ import annotations

from pathlib import Path

from fewshot.cli import Parser, people, run


def parser() -> Parser:
    parser = Parser(prog="fewshot.leaderboard", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="folder of run folders (searched below, too)")
    parser.add_argument("--csv", default="leaderboard.csv", metavar="FILE", help="the file to write")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.leaderboard import gather, print_board, write_csv

    rows = gather(Path(args.runs))
    write_csv(Path(args.csv), rows)
    console = people()
    print_board(console, rows)
    console.print(f"{len(rows)} rows in {args.csv}")


if __name__ == "__main__":
    raise SystemExit(run(main))
