"""How many near-copies of images does `prepare` find, how many others does it take for copies, and what does it cost?

    python scripts/near_copies.py --json results/near-copies.json

On a prepared data set, by default mini-ImageNet. Some training images, drawn at random, are changed and looked for
among all training images: a changed one is found if it is paired with the image that it was made from. Then all splits
are compared with each other, as `prepare` does.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.core.console import Parser, run
from fewshot.core.errors import UserError
from fewshot.core.files import write_json


def parser() -> Parser:
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser = Parser(prog="scripts.near_copies", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mini-imagenet", metavar="NAME", help="a prepared data set")
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--images", type=int, default=1500, metavar="N", help="of the training split, to be changed")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides which images these are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.data import open_dataset
    from fewshot.data.importers import near

    dataset = open_dataset(args.dataset, args.data_root)
    train = dataset["train"].images
    if not isinstance(train, np.ndarray):
        raise UserError(f"--dataset {args.dataset}: its images stay in files; copies are sought among stored pixels")
    if not 0 < args.images <= len(train):
        raise UserError(f"--images {args.images}: {args.dataset} has {len(train):,} training images")
    chosen = np.sort(np.random.default_rng(args.seed).choice(len(train), args.images, replace=False))
    originals = near.cells(train)
    found = {}
    for name, change in CHANGES.items():
        changed = np.stack([np.asarray(change(Image.fromarray(train[row]))) for row in chosen])
        pairs = near.near_copies(
            {"train": originals, "changed": near.cells(changed)}, {"train": train, "changed": changed}
        )
        if pairs is None:
            raise UserError(f"{args.dataset}: its images are so alike that copies cannot be told from others")
        right = {copy for (_, row), (_, copy) in pairs if row == chosen[copy]}
        share, others = len(right) / args.images, len(pairs) - len(right)
        found[name] = {"found": round(share, 4), "pairs with another image": others}
        print(f"{name}: {100 * share:.1f} % found, {others} pairs with another image")

    arrays = {split: each.images for split, each in dataset.splits.items()}
    begun = time.process_time()
    pairs = near.near_copies({split: near.cells(images) for split, images in arrays.items()}, arrays)
    count = sum(map(len, arrays.values()))
    cost = 1e6 * (time.process_time() - begun) / count
    if pairs is None:
        raise UserError(f"{args.dataset}: its images are so alike that copies cannot be told from others")
    across = len(pairs)
    print(f"{across} pairs across the splits of {count:,} images; {cost:.1f} microseconds of processor an image")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"dataset": args.dataset, "fingerprint": dataset.fingerprint, "seed": args.seed, "images": args.images}
        whole = {"images": count, "pairs": across, "microseconds of processor an image": round(cost, 1)}
        write_json(args.json, {"changed": about | {"changes": found}, "across splits": whole})


def saved(quality: int) -> Callable[[Image.Image], Image.Image]:
    """As a JPEG, and read again."""

    def change(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def smaller(image: Image.Image) -> Image.Image:
    """At four sevenths of its side, 48 of 84 px, and back."""
    return image.resize((4 * image.width // 7,) * 2, Image.Resampling.BILINEAR).resize(
        image.size, Image.Resampling.BILINEAR
    )


def cropped(image: Image.Image) -> Image.Image:
    """Without 2 pixels at each side, and as large as before."""
    inner = image.crop((2, 2, image.width - 2, image.height - 2))
    return inner.resize(image.size, Image.Resampling.BILINEAR)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES = {
    "JPEG of quality 60": saved(60),
    "JPEG of quality 30": saved(30),
    "smaller and larger again": smaller,
    "2 pixels cut off at each side": cropped,
    "mirrored": mirrored,
}


if __name__ == "__main__":
    raise SystemExit(run(main))
