"""How much TargetDrop's frozen attention attends to: does it choose other channels for other images?

    python scripts/targetdrop_attention.py --data-root data

The attention of the paper as written never learns (fewshot/regularizers/targetdrop.py), so it is a fixed random
projection of the channels' averages. Measured over validation images, at the default sites of Conv-4:

- shared: the share of its target channels that an image has in common with another, over all pairs of images.
  If each image chose at random it would be their number / 64: 14 % for 9 channels.
- always: how many of the target channels are chosen in more than 90 % of the images.
- dead: attentions whose hidden units (64 / reduction = 4) are all 0 for every image. All channels then tie, and the
  first 9 are taken. Besides, the share of images for which they are all 0, mean over attentions.

Networks: untrained ones, each with many freshly drawn attentions; and ones that were trained for a few steps with
TargetDrop, each with its own attention. Half a minute of processor time on glyphs, three and a half on mini-ImageNet.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import fewshot
from fewshot import regularizers, train
from fewshot.core import console
from fewshot.data import default_dataset, open_dataset
from fewshot.evaluation.inspection import outputs
from fewshot.regularizers.targetdrop import targets

HERE = Path(__file__).resolve().parent.parent
ALWAYS = 0.9  # of the images


def choices(logits: torch.Tensor, count: int) -> tuple[float, int]:
    """(shared, always) for logits (N, C) of N images: see above."""
    chosen = targets(logits, count).sum(0).double()  # (C,): images that choose each channel
    images = len(logits)
    shared = (chosen * (chosen - 1)).sum().item() / (images * (images - 1) * count)
    return shared, int((chosen > ALWAYS * images).sum())


def network(folder: Path, seed: int, args: argparse.Namespace) -> torch.nn.Module:
    """Conv-4 with TargetDrop after `args.steps` steps of two episodes, or untrained."""
    flags = ["--backbone", "conv4", "--reg", "targetdrop", "--seed", seed, "--device", "cpu", "--threads", args.threads]
    flags += ["--dataset", args.dataset, "--data-root", args.data_root, "--out", folder]
    flags += ["--epochs", int(args.steps > 0), "--episodes-per-epoch", max(1, 2 * args.steps)]
    flags += ["--episodes-per-batch", 2, "--val-episodes", 2, "--test-episodes", 2, "--test-shots", 1]
    with contextlib.redirect_stdout(io.StringIO()):
        status = console.run(train.main, list(map(str, flags)))
    if status:
        raise SystemExit(status)
    return fewshot.load(folder, device="cpu")


def measure(model, images: np.ndarray, initialisations: int) -> list[tuple[str, float, int, float]]:
    """(site, shared, always, share of images that are dead) of each attention at each site: of the model's own, or of
    freshly drawn ones."""
    rows = []
    own = model.backbone.regularizers
    for reg, maps in zip(own, outputs(model, own, images), strict=True):
        for number in range(max(1, initialisations)):
            torch.manual_seed(number)
            attention = regularizers.build("targetdrop", reg.site) if initialisations else reg
            logits = attention.logits(maps)
            dead = (maps.mean((2, 3)) @ attention.w1.T <= 0).all(1)  # (N,)
            rows.append((reg.site.label, *choices(logits, attention.count), dead.float().mean().item()))
    return rows


def table(rows: dict[str, list[tuple[str, float, int, float]]]) -> list[str]:
    """Markdown: each kind of network by site. Medians, and in brackets the 10th and the 90th percentile."""
    columns = ("network", "site", "attentions", "shared", "always, of 9", "dead", "of images")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for kind, found in rows.items():
        for site in sorted({row[0] for row in found}):
            here = [row for row in found if row[0] == site]
            low, shared, high = np.percentile([100 * row[1] for row in here], [10, 50, 90])
            fewest, always, most = np.percentile([row[2] for row in here], [10, 50, 90])
            dead = sum(row[3] == 1 for row in here)
            of_images = 100 * sum(row[3] for row in here) / len(here)
            lines.append(
                f"| {kind} | {site} | {len(here)} | {shared:.0f} % ({low:.0f} to {high:.0f})"
                f" | {always:.0f} ({fewest:.0f} to {most:.0f})"
                f" | {dead} ({100 * dead / len(here):.1f} %) | {of_images:.1f} % |"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default="data", help="folder of prepared data sets (default: data)")
    parser.add_argument("--dataset", default=None, help="default: mini-imagenet where it is prepared, else glyphs")
    parser.add_argument("--images", type=int, default=300, help="validation images (default: 300)")
    parser.add_argument("--untrained", type=int, default=5, help="untrained networks (default: 5)")
    parser.add_argument("--initialisations", type=int, default=200, help="attentions for each of them (default: 200)")
    parser.add_argument("--trained", type=int, default=3, help="trained networks (default: 3)")
    parser.add_argument("--steps", type=int, default=100, help="of their training, two episodes each (default: 100)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "targetdrop-attention.md", help="the table")
    args = parser.parse_args()
    asked = default_dataset(args.data_root)
    args.dataset = args.dataset or (asked if isinstance(asked, str) else asked[0])
    split = open_dataset(args.dataset, args.data_root)["val"]
    images = split.images[np.linspace(0, len(split.images) - 1, min(args.images, len(split.images))).astype(int)]
    trained, rows = args.steps, {}
    with tempfile.TemporaryDirectory() as folder:
        for steps, networks, initialisations in ((0, args.untrained, args.initialisations), (trained, args.trained, 0)):
            args.steps = steps
            kind = f"{steps} steps" if steps else "untrained"
            for seed in range(networks):
                model = network(Path(folder) / f"{kind} {seed}", seed, args)
                rows.setdefault(kind, []).extend(measure(model, images, initialisations))
    flags = " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in ("images", "untrained"))
    command = f"python scripts/targetdrop_attention.py --dataset {args.dataset} {flags}"
    command += f" --initialisations {args.initialisations} --trained {args.trained} --steps {trained}"
    lines = table(rows)
    text = [
        "# What TargetDrop's frozen attention attends to", "",
        f"{len(images)} validation images of {args.dataset} in Conv-4. `shared`: the target channels that two images",
        "have in common, 14 % by chance; `always`: target channels that are chosen in more than 90 % of the images;",
        "`dead`: attentions whose hidden units are 0 for every image; `of images`: the share of images for which they",
        "are, mean over attentions. Medians over attentions, in brackets the 10th and 90th percentile. Untrained",
        "networks with freshly drawn attentions; trained ones with their own.", "",
        *lines, "", f"    {command}", "",
    ]  # fmt: skip
    args.out.write_text("\n".join(text))
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
