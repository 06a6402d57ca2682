"""python -m fewshot.evaluate: score trained runs on test episodes, and keep the rows in their folders."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from typing import TYPE_CHECKING

from fewshot.config import MOST_EPISODES
from fewshot.core.console import Parser, add_trust, run, summary, terminal
from fewshot.core.crew import member
from fewshot.core.errors import UserError

_MORE = """
A run that was trained to classify a data set with the same classes in every split (fashion-mnist) is tested by that
classifier: top-1 and top-5 accuracy on all images of the split. To get few-shot tasks instead, give any option of tasks
(--shots, --head, --tasks, ...).
"""

if TYPE_CHECKING:
    from fewshot.data import Dataset
    from fewshot.episodes import Tasks

_PROTOCOL_FLAGS = {
    "ways": "classes in an episode (default: 5)", "shots": "support images a class (default: 1 5)",
    "queries": "query images a class (default: 15)", "episodes": "episodes for each number of shots (default: 10000)",
}  # fmt: skip
_PROTOCOL = {"split": "test", "ways": 5, "shots": [1, 5], "queries": 15, "query_alpha": None, "episodes": 10_000}


def parser() -> Parser:
    parser = Parser(prog="fewshot.evaluate", description=summary(__doc__), epilog=_MORE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--dataset", default="auto", help="data set; auto: the one each run was trained on")
    parser.add_argument(
        "--data-root",
        default=SUPPRESS,
        help="folder of prepared data sets (default: $FEWSHOT_DATA, else each run's own)",
    )
    parser.add_argument(
        "--split", default=SUPPRESS, choices=("test", "val", "train"),
        help="split of the data set (default: test); a run that is far better on train than on val overfits",
    )  # fmt: skip
    for name, text in _PROTOCOL_FLAGS.items():
        nargs = "+" if name == "shots" else None
        parser.add_argument(f"--{name}", type=int, nargs=nargs, default=SUPPRESS, metavar="N", help=text)
    parser.add_argument(
        "--query-alpha", type=float, default=SUPPRESS, metavar="A",
        help="unbalanced tasks: numbers of queries from Dirichlet(A), --queries on average; the usual A is 2",
    )  # fmt: skip
    parser.add_argument(
        "--tasks", nargs="+", default=SUPPRESS, metavar="LIST",
        help="frozen task lists, by name or file, instead of --split, --ways and the other options of tasks",
    )  # fmt: skip
    parser.add_argument(
        "--head", default=None,
        help="head (default: each run's own); relation, and anil without init=zero, only for runs trained with them",
    )  # fmt: skip
    parser.add_argument(
        "--transform", default=None, help="transform of embeddings, such as center+l2 (default: each run's own)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision", default="auto", choices=("auto", "fp32", "bf16"),
        help="of the network; auto: what each run was trained in, if this machine has it",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0: torch's choice")
    parser.add_argument(
        "--replace", action="store_true",
        help="replace all earlier results of the same protocol; without it, only a result on the very same tasks and"
        " images is replaced",
    )  # fmt: skip
    add_trust(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    with member() as crew:
        if crew.several:
            raise UserError("evaluate is one process's work: start it without torchrun")
        _evaluate(argv)


def _evaluate(argv: list[str] | None) -> None:
    args = parser().parse_args(argv)
    given = vars(args)
    for name in _PROTOCOL:
        if name in given and "tasks" in given:
            raise UserError(f"--tasks says what --{name.replace('_', '-')} says: leave one of the two out")
    of_tasks = (_PROTOCOL.keys() - {"split"}) | {"tasks"}
    asks_for_tasks = bool(given.keys() & of_tasks or args.head or args.transform)
    given |= {name: given.get(name, value) for name, value in {**_PROTOCOL, "tasks": [], "data_root": None}.items()}

    from fewshot import heads, transforms
    from fewshot.core import compute
    from fewshot.episodes import Protocol, frozen
    from fewshot.evaluation.finished import Request, carry_out, check
    from fewshot.evaluation.overlap import in_words
    from fewshot.reports.tables import print_classification, print_results

    console = terminal()
    protocols = [Protocol(args.ways, shots, args.queries, args.query_alpha) for shots in dict.fromkeys(args.shots)]
    lists = [frozen.read(name) for name in dict.fromkeys(args.tasks)]
    if len({each.split for each in lists}) > 1:
        raise UserError("--tasks: the lists are of different splits; evaluate one split at a time")
    for name in (names := [each.name for each in lists]):
        if names.count(name) > 1:
            raise UserError(f"--tasks: two lists are {name}; evaluate one after the other")
    if args.head is not None:
        heads.build(args.head)  # a wrong one is found before any work
    if args.transform is not None:
        transforms.build(args.transform)
    where = compute.choose(args.device, args.precision)
    compute.settle(where, args.threads, tuned=False)  # the same run gives the same rows
    if args.episodes < 2:
        raise UserError(f"--episodes {args.episodes}: an interval needs at least 2")
    if args.episodes > MOST_EPISODES:
        raise UserError(f"--episodes {args.episodes}: give at most {MOST_EPISODES:,}")

    def tasks(dataset: Dataset) -> list[Tasks]:
        return [each.tasks(dataset) for each in lists] or [
            frozen.standard_tasks(dataset, args.split, protocol, args.episodes) for protocol in protocols
        ]

    request = Request(
        args.dataset, args.data_root, args.split, tasks, asks_for_tasks, args.head, args.transform, where,
        args.precision == "auto", args.replace, args.trust,
    )  # fmt: skip
    folders = {os.path.realpath(folder): folder for folder in args.runs}.values()
    plans = [check(request, folder) for folder in folders]  # every complaint comes before the first minute of work
    compute.keep_heap()
    for plan in plans:
        folder = str(plan.run.folder)
        for note in plan.notes:
            console.print(note)
        with compute.room_for("--device cpu"):
            rows = carry_out(request, plan)
        if not plan.wanted:
            print_classification(console, folder, rows)
            continue
        if overlap := rows[0].get("seen_in_training"):
            console.print(
                f"Warning: {folder} was trained on {in_words(overlap)} of what it is tested on here: the results say"
                " so, and are no few-shot results."
            )
        solved = [f"{name} {value}" for name in ("head", "transform") if (value := getattr(args, name)) is not None]
        print_results(console, ", ".join([folder, *solved]), rows)


if __name__ == "__main__":
    raise SystemExit(run(main))
