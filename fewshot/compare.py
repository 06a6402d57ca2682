"""python -m fewshot.compare: say in words what runs on the same tasks prove about each other, and what they do not."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError

_MORE = """
Runs that differ in nothing but the seed are one entry; runs of different code never are. Entries are ranked. Each is
compared with the most accurate one (--all-pairs: with each other), episode by episode, for each protocol (data set,
ways, shots, queries, and whether the head is transductive) that all were scored under. A difference is called
established where p < 0.05 in a two-sided t-test. Classifiers are compared image by image, by McNemar's test where an
entry is one run. Of more than two entries, p-values are Holm's over all pairs. An entry's rank is 1 + the number of
entries that are established better: by that test, and where there are several seeds by their intervals, too, as on the
leaderboard. Below stands what it would take, by the variances measured here, to establish the difference seen (or
--detect POINTS) in 80 of 100 such studies: how many images of each class, test classes and training seeds, each for its
own question. A run that is unfinished or damaged is left out, with a warning, as long as two configurations remain; a
protocol that not all were scored under, on the same tasks and pixels, likewise.

To compare heads, name them behind the runs: fewshot.compare RUN... --head proto simpleshot:norm=cl2n. Each run is then
an entry for each head, by the results that evaluate --head has left in its folder.
"""


def parser() -> Parser:
    parser = Parser(prog="fewshot.compare", description=summary(__doc__), epilog=_MORE)
    parser.add_argument(
        "--detect", type=float, metavar="POINTS",
        help="say what it would take to establish a difference of so many points (default: of the one seen)",
    )  # fmt: skip
    parser.add_argument(
        "--all-pairs", action="store_true",
        help="of more than two, compare each with each, not only with the most accurate one",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="test", choices=("test", "val", "train"),
        help="compare the results on this split; those on val and train are no test",
    )  # fmt: skip
    for name, what in (("head", "heads"), ("transform", "transforms of embeddings")):
        parser.add_argument(
            f"--{name}", nargs="+", default=[None], metavar=name.upper(),
            help=f"compare the results by these {what}, as evaluate --{name} wrote them (default: each run's own)",
        )  # fmt: skip
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, of two configurations or more; with two heads, of one"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.comparisons import comparison
    from fewshot.reports.comparisons.asked import Asked

    comparison.check_points(args.detect, "--detect ")
    folders = list({Path(folder).resolve(): folder for folder in args.runs}.values())
    solvers = product(dict.fromkeys(args.head), dict.fromkeys(args.transform))
    asked = [Asked(args.split, head, transform) for head, transform in solvers]
    if len(folders) < 2 and len(asked) < 2:
        raise UserError(f"{args.runs[0]} is one run: give another to compare it with, or two heads behind --head")
    comparison.print_all(terminal(), folders, args.detect, asked, args.all_pairs)


if __name__ == "__main__":
    raise SystemExit(run(main))
