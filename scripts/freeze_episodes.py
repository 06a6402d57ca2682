"""Write frozen task lists: episodes/*.json.

    python scripts/freeze_episodes.py --data-root data                        # of mini-ImageNet and the glyphs
    python scripts/freeze_episodes.py --dataset fashion-mnist                 # of another one that is prepared
    python scripts/freeze_episodes.py --dataset cifar-fs fc100 omniglot --without-images
    python scripts/freeze_episodes.py --dataset omniglot --without-images --splits test --ways 20
    python scripts/freeze_episodes.py --dataset flowers --folder my_lists     # of a data set of your own
    python scripts/freeze_episodes.py --dataset mini-imagenet --splits test --query-alpha 2             # unbalanced
    python scripts/freeze_episodes.py --dataset mini-imagenet-42                                        # and this, too
    python scripts/freeze_episodes.py --dataset glyphs --splits test --query-alpha 2 --queries 3

5-way 1- and 5-shot, 15 queries, 10,000 episodes, of test and validation, unless flags say otherwise. The lists in
`episodes` are committed: a change in them changes the standard tasks.
"""

from __future__ import annotations

import os
from pathlib import Path

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError


def parser() -> Parser:
    parser = Parser(prog="scripts.freeze_episodes", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="default: those whose lists are in the repository")
    parser.add_argument(
        "--without-images", action="store_true",
        help="by the classes and counts of the specification, where it has all of them: no copy is needed, and the"
        " lists name no reference pixels",
    )  # fmt: skip
    parser.add_argument("--splits", nargs="+", default=["val", "test"], metavar="SPLIT", help="default: val test")
    parser.add_argument("--ways", type=int, default=5, metavar="N", help="classes in a task (default: 5)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5], metavar="N", help="default: 1 5")
    parser.add_argument("--queries", type=int, default=15, metavar="N", help="query images a class (default: 15)")
    parser.add_argument("--query-alpha", type=float, metavar="A", help="queries from Dirichlet(A); default: balanced")
    parser.add_argument("--episodes", type=int, default=10_000, metavar="N", help="tasks in a list (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the tasks (default: 0, the standard one)")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where the lists go (default: episodes)")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.episodes < 2:
        raise UserError(f"--episodes {args.episodes}: an interval needs at least 2")

    from fewshot.core.files import write_json
    from fewshot.data import open_dataset, specs
    from fewshot.data.members import without_images
    from fewshot.episodes import Protocol, frozen

    datasets = [
        without_images(specs.get(name)) if args.without_images else open_dataset(name, args.data_root)
        for name in args.dataset or specs.DEFAULTS
    ]
    protocols = [Protocol(args.ways, shots, args.queries, args.query_alpha) for shots in args.shots]
    lists = [
        frozen.freeze(dataset, split, protocol, args.episodes, args.seed)
        for dataset in datasets for split in args.splits for protocol in protocols
    ]  # fmt: skip
    folder = args.folder or frozen.LISTS
    folder.mkdir(parents=True, exist_ok=True)
    for each in lists:
        write_json(folder / f"{each.name}.json", each.to_json())
        terminal().print(f"{folder / each.name}.json: {each.digest[:16]}")


if __name__ == "__main__":
    raise SystemExit(run(main))
