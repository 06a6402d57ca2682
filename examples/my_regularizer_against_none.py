"""A regularizer of your own against none: three training seeds each, compared on the same tasks.

    python examples/my_regularizer_against_none.py

Six short runs on `glyphs`, about three minutes in total on one core. Stop it and run it again: it goes on where it was.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import fewshot
from fewshot.regularizers import Regularizer, Site
from fewshot.runs import Run

SEEDS = (0, 1, 2)
QUICK = {"epochs": 1, "episodes_per_epoch": 4, "val_episodes": 20, "test_episodes": 200, "threads": 1}


class RowDrop(Regularizer):
    """Rows of the map are dropped, in all channels at once; expected drop fraction: `rate`."""

    def __init__(self, site: Site, *, rate: float = 0.1) -> None:
        super().__init__(site)
        self.check_rate(rate=rate)
        self.rate = rate
        self.active = rate > 0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, 1, H, 1), broadcast over x (N, C, H, W)."""
        kept = torch.rand(len(x), 1, x.shape[2], 1, device=x.device) >= self.rate
        return kept / (1 - self.rate) if self.rate < 1 else kept.float()


def train(reg: str, seed: int, folder: str, values: dict) -> Run:
    """The finished run: started, continued, or found finished."""
    config = fewshot.configure(**{"dataset": "glyphs", "recipe": "glyphs-quick", "reg": reg, "seed": seed} | values)
    return fewshot.run(config, f"{folder}-seed{seed}", resume=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs", help="folder for the runs (default: runs)")
    parser.add_argument("--quick", action="store_true", help="two steps a run, to see that it works")
    args = parser.parse_args(argv)
    values = QUICK if args.quick else {}

    none = [train("none", seed, f"{args.out}/none", values) for seed in SEEDS]
    # A run imports the method by its dotted name: this file's name, and the class in it.
    mine = [
        train("my_regularizer_against_none.RowDrop:rate=0.1", seed, f"{args.out}/row-drop", values) for seed in SEEDS
    ]
    print(*fewshot.difference(mine, none, names=("RowDrop", "none")), sep="\n")  # 1-shot, then 5-shot


if __name__ == "__main__":
    main()
