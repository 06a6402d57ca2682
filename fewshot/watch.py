"""python -m fewshot.watch: follow a run that another process trains, from its metrics.jsonl, to its end."""

from __future__ import annotations

from pathlib import Path

from fewshot.core.console import Parser, run, summary, terminal

_MORE = """
Shows what the training itself would print: a live bar on a screen, lines in a pipe. It may begin before the run does,
and disturbs nothing. It ends when the run is finished, or when no process is at work on it any more.
"""


def parser() -> Parser:
    parser = Parser(prog="fewshot.watch", description=summary(__doc__), epilog=_MORE)
    parser.add_argument("run", metavar="RUN", help="run folder; it may be finished, or not be there yet")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.following.watching import follow

    follow(Path(args.run), terminal())


if __name__ == "__main__":
    raise SystemExit(run(main))
