"""learn2learn's MAML or ANIL around our backbone: trained on glyphs, scored on the tasks that all methods solve.

    python examples/maml.py --out runs/maml
    fewshot leaderboard --runs runs

It needs learn2learn: sh scripts/install_learn2learn.sh PYTHON.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from learn2learn.data import partition_task

import fewshot
from fewshot.episodes import EpisodeSampler, Protocol, Tasks
from fewshot.interop import learn2learn as l2l

WAYS, SHOTS, QUERIES, BATCH = 5, 1, 6, 4


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="maml", choices=("maml", "anil"), help="all adapts, or the classifier")
    parser.add_argument("--reg", default="none", help="regularizers of the backbone (default: none)")
    parser.add_argument("--steps", type=int, default=400, help=f"of {BATCH} tasks each (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="run folder to make")
    parser.add_argument("--quick", action="store_true", help="2 steps, 10 test tasks")
    args = parser.parse_args(argv)
    steps, episodes = (2, 10) if args.quick else (args.steps, 1000)

    torch.manual_seed(args.seed)
    glyphs = fewshot.open_dataset("glyphs")
    backbone = fewshot.backbones.build("conv4", reg=args.reg, image_size=glyphs.image_size)
    learner = getattr(l2l, args.method)(backbone, glyphs, WAYS, lr=0.05)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.003)
    sampler = EpisodeSampler(glyphs["train"], Protocol(WAYS, SHOTS, QUERIES), args.seed)
    tasks = l2l.taskset(Tasks(sampler, steps * BATCH))

    for step in range(steps):
        learner.backbone.begin_step(step / steps)  # masks of the regularizers: new ones in each step
        optimizer.zero_grad()
        total = 0.0
        for number in range(step * BATCH, (step + 1) * BATCH):
            (support, labels), (query, targets) = partition_task(*tasks[number], shots=SHOTS)
            loss = F.cross_entropy(learner(support, labels, query), targets) / BATCH
            loss.backward()
            total += loss.item()
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {total:.3f}")

    origin = fewshot.Origin("conv4", reg=args.reg, dataset="glyphs", seed=args.seed) if args.out else None
    for score in l2l.evaluate(
        learner, glyphs, shots=SHOTS, episodes=episodes, name=args.method, out=args.out, origin=origin
    ):
        print(score)


if __name__ == "__main__":
    main()
