"""How many images a second are decoded, cropped and resized, from files such as ImageNet's.

    taskset -c 0 python scripts/bench_image_files.py       # one core
    python scripts/bench_image_files.py --images 1000

The files are made here, from smooth noise: JPEGs of 500x375 pixels and 99 KB, about as large as ImageNet's. Prints
images a second of training crops (224 px) and of the evaluation view, medians of some rounds, without any network.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.process import processors

SIZE, QUALITY, GRAIN = (500, 375), 90, 20  # with this much noise, such files have 99 KB


def parser() -> Parser:
    parser = Parser(prog="scripts.bench_image_files", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, metavar="N", help="files, decoded once a round: 300")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of which the median counts: 5")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    for flag in ("images", "rounds"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)}: give at least 1")

    from fewshot.data.image_files import ImageFiles

    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.JPEG" for number in range(args.images)]
        for number, name in enumerate(names):
            make(Path(folder, name), number)
        sizes = [Path(folder, name).stat().st_size for name in names]
        files, index = ImageFiles(Path(folder), names, sizes, 224), np.arange(args.images)

        def crops() -> None:
            files.crops(index, np.random.default_rng(0), mirror=True)()

        cores = processors()
        console = terminal()
        console.print(f"{args.images} JPEGs of {SIZE[0]}x{SIZE[1]}, {statistics.mean(sizes) / 1000:.0f} KB on average;")
        console.print(f"{cores} cores")
        for name, work in (("training crops", crops), ("evaluation views", lambda: files[index])):
            seconds = statistics.median(timed(work) for _ in range(args.rounds))
            console.print(f"{name}: {args.images / seconds:,.0f} images a second")


def make(path: Path, seed: int) -> None:
    """A picture: large smooth forms, and grain upon them."""
    draw = np.random.default_rng(seed)
    forms = Image.fromarray(draw.integers(0, 256, (8, 10, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    grain = draw.normal(0, GRAIN, (SIZE[1], SIZE[0], 3))
    Image.fromarray((np.asarray(forms) + grain).clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=QUALITY)


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(run(main))
