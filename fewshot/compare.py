"""python -m fewshot.compare: say in words what runs on the same tasks prove about each other, and what they do not."""

from __future__ import annotations

import os
from itertools import product

from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError

_MORE = """
Runs that differ only in the seed are one entry; runs of different code never are. The most accurate entry is
compared with each other one (--all-pairs: each with each), task by task, for each protocol that all were scored
under: data set, ways, shots, queries, and whether the head is transductive.

A difference is established if p < 0.05 in a two-sided t-test, by Holm's method over all pairs if there are more than
two entries. An entry's rank is 1 + the number of entries that are established to be better: by that test and, if there
are several seeds, also by their intervals, as on the leaderboard. Classifiers are compared image by image: by McNemar's
test if both entries are one run, else by a t-test.

Below each pair is a plan: how many images of each class, test classes or training seeds would establish the difference
seen (or --detect POINTS) in 80 of 100 such studies, by the variances measured here. Each number is for a question of
its own (docs/statistics.md).

A run that is unfinished or damaged is left out, with a warning, as long as two configurations remain. So is a protocol
that not all were scored under, on the same tasks and pixels.

To compare heads on the same networks, name them after the runs: fewshot.compare RUN... --head proto
simpleshot:norm=cl2n. Each run is then an entry for each head, by the results that evaluate --head left in its folder.
"""


def parser() -> Parser:
    parser = Parser(prog="fewshot.compare", description=summary(__doc__), epilog=_MORE)
    parser.add_argument(
        "--detect", type=float, metavar="POINTS",
        help="plan for a difference of this many points (default: the one seen)",
    )  # fmt: skip
    parser.add_argument(
        "--all-pairs", action="store_true",
        help="compare each entry with each, not only with the most accurate one",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="test", choices=("test", "val", "train"),
        help="compare the results on this split; results on val and train are not a test",
    )  # fmt: skip
    for name, what in (("head", "heads"), ("transform", "transforms of embeddings")):
        parser.add_argument(
            f"--{name}", nargs="+", default=[None], metavar=name.upper(),
            help=f"compare the results of these {what}, written as for evaluate --{name} (default: each run's own)",
        )  # fmt: skip
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders of two configurations or more; with two heads, one is enough",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.comparisons import comparison
    from fewshot.reports.comparisons.asked import Asked

    comparison.check_points(args.detect, "--detect ")
    folders = list({os.path.realpath(folder): folder for folder in args.runs}.values())
    solvers = product(dict.fromkeys(args.head), dict.fromkeys(args.transform))
    asked = [Asked(args.split, head, transform) for head, transform in solvers]
    if len(folders) < 2 and len(asked) < 2:
        raise UserError(f"{args.runs[0]} is one run: give another to compare it with, or two heads after --head")
    comparison.print_all(terminal(), folders, args.detect, asked, args.all_pairs)


if __name__ == "__main__":
    raise SystemExit(run(main))
