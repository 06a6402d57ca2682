"""Score a network of your own on the standard few-shot tasks, without training it: here torchvision's ResNet-18.

    python examples/score_my_network.py

What counts is the network's embedding, so its classifier is replaced by `Identity`. The data set `glyphs` comes with
fewshot; any that you have prepared works as well.
"""

from __future__ import annotations

import argparse

import torch
import torchvision

import fewshot

# (head, transform of embeddings): both act on embeddings, and neither trains the network.
SOLVERS = [("proto", "none"), ("proto", "center+l2"), ("r2d2", "none")]


def network() -> torch.nn.Module:
    """Images (N, 3, S, S) to embeddings (N, 512). Load your weights here: untrained ones are the baseline to beat."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    model.fc = torch.nn.Identity()
    return model


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="glyphs", help="a prepared data set (default: glyphs)")
    parser.add_argument("--quick", action="store_true", help="200 tasks instead of 10,000, one head")
    args = parser.parse_args(argv)

    model = network()
    for head, transform in SOLVERS[:1] if args.quick else SOLVERS:
        scores = fewshot.benchmark(
            model, args.dataset, head, shots=(1, 5), transform=transform, episodes=200 if args.quick else 10_000
        )
        for score in scores:
            print(f"{head:6} {transform:10} {score}")


if __name__ == "__main__":
    main()
