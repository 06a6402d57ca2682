"""Write the frozen task lists, fewshot/episodes/lists/*.json, anew.

    python scripts/freeze_episodes.py --data-root data

5-way 1- and 5-shot, 15 queries, 10,000 episodes, of test and validation; of glyphs, and of mini-ImageNet as prepared
from the images. The lists are committed: a change in them is a change of everyone's tasks.
"""

from __future__ import annotations

import dataclasses
import os

from fewshot.core.console import Parser, run, terminal


def parser() -> Parser:
    parser = Parser(prog="scripts.freeze_episodes", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.core.files import write_json
    from fewshot.data import open_dataset
    from fewshot.episodes import Protocol, frozen

    datasets = [open_dataset(name, args.data_root) for name in ("glyphs", "mini-imagenet")]
    for dataset in datasets:
        for split in ("val", "test"):
            for shots in (1, 5):
                tasks = frozen.freeze(dataset, split, Protocol(5, shots, 15))
                write_json(frozen.LISTS / f"{tasks.name}.json", dataclasses.asdict(tasks))
                terminal().print(f"{tasks.name}: {tasks.digest[:16]}")


if __name__ == "__main__":
    raise SystemExit(run(main))
