"""Attack trained classifiers by targeted PGD: how often is an image classified as a class that we choose?

    python scripts/pgd.py runs/none runs/camdrop
    python scripts/pgd.py runs/none --eps 0 1 2 5 --steps 2 --step 1

CamDrop's table 7: L-infinity, 5 gray levels, 2 steps of 1, from a random point of the ball, targets drawn uniformly.
Every network is attacked on the same test images, to the same targets, from the same points, so two can be compared.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fewshot.core.console import Parser, add_trust, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import destination, write_json

HEADER = ("run", "eps", "led to the target (%)", "still right (%)", "right before (%)", "against the first run (%)")


def parser() -> Parser:
    parser = Parser(prog="scripts.pgd", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders of supervised training")
    parser.add_argument("--eps", nargs="+", type=float, default=[5.0], metavar="N", help="radii, in gray levels: 5")
    parser.add_argument("--step", type=float, default=1.0, metavar="N", help="of the attack, in gray levels: 1")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="of the attack: 2")
    parser.add_argument("--clean", action="store_true", help="begin at the clean image, not at a random point")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="of the test split, evenly spread: 1000")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides targets and random points")
    parser.add_argument("--data-root", help="of prepared data sets; else $FEWSHOT_DATA, or the run's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    add_trust(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from rich import box
    from rich.table import Table

    from fewshot import model as models
    from fewshot.core import compute
    from fewshot.data import open_dataset
    from fewshot.evaluation.attack import Attack, attack_split
    from fewshot.evaluation.proportions import paired_difference, wilson
    from fewshot.runs import Run

    attacks = [Attack(eps / 255, args.step / 255, args.steps, not args.clean) for eps in args.eps]
    where = compute.choose(args.device, "fp32")
    table = Table(*HEADER, box=box.SIMPLE_HEAD)
    if args.json:
        destination(args.json).parent.mkdir(parents=True, exist_ok=True)
    first: dict[tuple[str, float], np.ndarray] = {}
    figures = []
    for folder in args.runs:
        each = Run.open(folder)
        each.check_code(args.trust, dataset=True)
        root = args.data_root or os.environ.get("FEWSHOT_DATA") or each.config.data_root
        dataset = open_dataset(each.config.dataset, root)
        model = models.load_run(each, where, args.trust)
        if dataset.image_size != model.backbone.image_size:
            raise UserError(f"{folder} was trained on {model.backbone.image_size} px, not on {dataset.image_size} px")
        for eps, attack in zip(args.eps, attacks, strict=True):
            found = attack_split(model, dataset["test"], args.images, attack, args.seed)
            low, high = wilson(int(found.success.sum()), args.images)
            against = ""
            same = dataset.fingerprint, eps  # the same images, attacked alike
            if same in first:
                gain = paired_difference(found.success, first[same])
                against = f"{100 * gain.estimate:+.2f} ({100 * gain.low:+.2f} .. {100 * gain.high:+.2f})"
            first.setdefault(same, found.success)
            shares = {name: float(getattr(found, name).mean()) for name in ("success", "correct", "clean")}
            figures.append({"run": folder, "eps": eps, **shares, "success_ci95": [low, high], "images": args.images})
            success = f"{100 * shares['success']:.2f} ({100 * low:.2f} .. {100 * high:.2f})"
            rest = (f"{100 * shares[name]:.2f}" for name in ("correct", "clean"))
            table.add_row(folder, f"{eps:g}", success, *rest, against)
    console = terminal()
    console.print(table)
    console.print("In brackets: 95% intervals, Wilson's, and Newcombe's of paired differences, on other images.")
    if args.json:
        write_json(args.json, {"attack": {"step": args.step, "steps": args.steps, "clean": args.clean,
                                          "seed": args.seed}, "figures": figures})  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run(main))
