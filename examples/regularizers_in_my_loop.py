"""fewshot's regularizers in your own training loop: here torchvision's ResNet-18, which learns the base classes.

    python examples/regularizers_in_my_loop.py

Network, classifier and loop are plain PyTorch. The lines marked (1) to (3) are all that the regularizers need.
300 steps take less than a minute on one core.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import fewshot
from fewshot.backbones import Foreign
from fewshot.regularizers import Guide

REG = "targetdrop@layer1+camdrop@layer2"
BATCH = 64


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reg", default=REG, help=f"regularizers, at modules of the network (default: {REG})")
    parser.add_argument("--steps", type=int, default=300, help="of training (default: 300)")
    parser.add_argument("--quick", action="store_true", help="3 steps, 200 tasks")
    args = parser.parse_args(argv)
    steps = 3 if args.quick else args.steps

    torch.manual_seed(0)
    glyphs = fewshot.open_dataset("glyphs")
    base = glyphs["train"]
    labels = torch.from_numpy(base.labels)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (glyphs.mean, glyphs.std))

    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    backbone = Foreign(glyphs.image_size, network, stages=("layer1", "layer2", "layer3", "layer4"))
    backbone.place(args.reg)  # (1) at modules by name, or at stages by number
    classifier = nn.Linear(backbone.features, len(base.classes))
    optimizer = torch.optim.SGD([*backbone.parameters(), *classifier.parameters()], lr=0.05, momentum=0.9)

    for step in range(steps):
        chosen = torch.randint(len(labels), (BATCH,))
        images = torch.from_numpy(base.images[chosen.numpy()]).permute(0, 3, 1, 2) / 255
        backbone.begin_step(step / steps)  # (2) schedules, and what is drawn once a step
        # (3) What the network looks at, for methods that ask: CamDrop does.
        guide = Guide(backbone.channel_weights(classifier.weight.detach()), labels[chosen])
        with backbone.guided_by(guide):
            loss = F.cross_entropy(classifier(backbone((images - mean) / std)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    for score in fewshot.benchmark(backbone, glyphs, shots=(1, 5), episodes=200 if args.quick else 10_000):
        print(score)


if __name__ == "__main__":
    main()
