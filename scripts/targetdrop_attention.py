"""How much TargetDrop's attention attends to: does it choose different channels for different images?

    python scripts/targetdrop_attention.py --dataset mini-imagenet-42 --runs runs/mini-imagenet-42/targetdrop*-seed?

The attention of the paper as written never learns (fewshot/regularizers/targetdrop.py), so it is a fixed random
projection of the channels' averages. Measured over validation images, at the default sites of Conv-4:

- shared: the share of its target channels that an image has in common with another, over all pairs of images.
  If each image chose at random it would be their number / 64: 14 % for 9 channels.
- always: how many of the target channels are chosen in more than 90 % of the images.
- always silent: attentions whose hidden units (64 / reduction = 4) are all 0 for every image. All channels then tie,
  and the first 9 are taken. Silent for: the share of images for which they are all 0, mean over attentions.

Networks: untrained ones, each with many freshly drawn attentions; and those of runs that were trained with TargetDrop,
each with its own attention. A few minutes of processor time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import fewshot
from fewshot import model, regularizers
from fewshot.core.components import parse
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import destination, write_output
from fewshot.data import open_dataset
from fewshot.evaluation.inspection import outputs
from fewshot.regularizers.targetdrop import targets
from fewshot.runs import Run

HERE = Path(__file__).resolve().parent.parent
ALWAYS = 0.9  # of the images
MANY = 20  # attentions


def choices(logits: torch.Tensor, count: int) -> tuple[float, int]:
    """(shared, always) for logits (N, C) of N images: see above."""
    chosen = targets(logits, count).sum(0).double()  # (C,): images that choose each channel
    images = len(logits)
    shared = (chosen * (chosen - 1)).sum().item() / (images * (images - 1) * count)
    return shared, int((chosen > ALWAYS * images).sum())


def measure(network, images: np.ndarray, initialisations: int = 0) -> list[tuple[str, float, int, float]]:
    """(site, shared, always, share of images that are dead) of each attention: the network's own, or newly drawn."""
    rows = []
    own = network.backbone.regularizers
    for reg, maps in zip(own, outputs(network, own, images), strict=True):
        for number in range(max(1, initialisations)):
            torch.manual_seed(number)
            attention = regularizers.build("targetdrop", reg.site) if initialisations else reg
            dead = (maps.mean((2, 3)) @ attention.w1.T <= 0).all(1) if hasattr(attention, "w1") else torch.zeros(1)
            rows.append((reg.site.label, *choices(attention.logits(maps), attention.count), dead.float().mean().item()))
    return rows


def table(rows: dict[str, list[tuple[str, float, int, float]]]) -> list[str]:
    """Markdown: each kind of network by site. Medians; in brackets the range of most of many, or of all of a few."""
    columns = ("network", "site", "attentions", "shared", "always, of 9", "always silent", "silent for")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind, found in rows.items():
        for site in sorted({row[0] for row in found}):
            here = [row for row in found if row[0] == site]
            ends = (10, 50, 90) if len(here) >= MANY else (0, 50, 100)
            low, shared, high = np.percentile([100 * row[1] for row in here], ends)
            fewest, always, most = np.percentile([row[2] for row in here], ends)
            dead = sum(row[3] == 1 for row in here)
            of_images = 100 * sum(row[3] for row in here) / len(here)
            lines.append(
                f"| {kind} | {site} | {len(here)} | {shared:.0f} % ({low:.0f} to {high:.0f})"
                f" | {always:.0f} ({fewest:.0f} to {most:.0f})"
                f" | {dead} ({100 * dead / len(here):.1f} %) | {of_images:.1f} % |"
            )
    return lines


def parser() -> Parser:
    parser = Parser(prog="scripts.targetdrop_attention", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--dataset", default="mini-imagenet", help="whose validation images (default: mini-imagenet)")
    parser.add_argument("--images", type=int, default=300, help="of them (default: 300)")
    parser.add_argument("--untrained", type=int, default=5, help="untrained networks (default: 5)")
    parser.add_argument("--initialisations", type=int, default=200, help="attentions for each of them (default: 200)")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="runs trained with targetdrop")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "targetdrop-attention.md", help="the table")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.images < 2:
        raise UserError(f"--images {args.images}: give two or more, which are compared")
    destination(args.out)
    dataset = open_dataset(args.dataset, args.data_root)
    split = dataset["val"]
    images = split.images[np.linspace(0, len(split.images) - 1, min(args.images, len(split.images))).astype(int)]
    rows: dict[str, list[tuple[str, float, int, float]]] = {}
    for seed in range(args.untrained):
        network = model.build("conv4", "targetdrop", "proto", dataset.image_size, dataset.mean, dataset.std, seed)
        rows.setdefault("untrained", []).extend(measure(network.eval(), images, args.initialisations))
    for folder in args.runs:
        config = Run.open(folder).config
        (spec, *more), what = parse(config.reg), (config.backbone, config.dataset)
        if spec.name != "targetdrop" or more or "drop_prob" in spec.options or what != ("conv4", args.dataset):
            raise UserError(
                f"{folder} is {config.backbone} with {config.reg} on {config.dataset}: give runs of conv4 with"
                f" targetdrop, at its own drop_prob, on {args.dataset}"
            )
        rows.setdefault(config.reg, []).extend(measure(fewshot.load(folder, device="cpu"), images))
    lines = table(rows)
    write_output(args.out, page(lines, len(images), args).encode())
    terminal().print("\n".join(lines))


def page(lines: Sequence[str], images: int, args) -> str:
    names = sorted({str(folder).rpartition("-seed")[0] for folder in args.runs})
    command = f"python scripts/targetdrop_attention.py --dataset {args.dataset} --images {args.images}"
    command += f" --untrained {args.untrained} --initialisations {args.initialisations}"
    command += " --runs " * bool(names) + " ".join(f"{name}-seed?" for name in names)
    return f"""# What TargetDrop's attention attends to

{images} validation images of {args.dataset} in Conv-4. `shared`: the target channels that two images have in common,
14 % by chance; `always`: target channels that are chosen in more than 90 % of the images; `always silent`: attentions
whose hidden units are 0 for every image; `silent for`: the share of images for which they are, mean over attentions.
Where they are, all channels tie, and the first 9 are taken. Medians over attentions; in brackets, of untrained networks
the 10th and 90th percentile, of trained ones the smallest and the largest. Untrained networks have many freshly drawn
attentions, trained ones their own.

{chr(10).join(lines)}

    {command}
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
