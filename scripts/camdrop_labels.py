"""Does an image's class reach the network through CamDrop's mask?

    python scripts/camdrop_labels.py --runs runs/mini-imagenet-42/{camdrop,none}-seed?

CamDrop drops blocks from the channels that speak for an image's own class. So its mask depends on that class, which
the network has to predict. Here trained networks answer in four ways: without regularizers, as in evaluation; with
CamDrop, as in training; with CamDrop, but each image guided by a class that is not its own; and with CamDrop, each
image guided by the class that the network predicts for it. Networks that were trained without CamDrop are the control:
they have not learned what its mask does to them.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fewshot
from fewshot.core.components import parse
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import destination, write_output
from fewshot.data import Split, open_dataset
from fewshot.data.augment import to_unit
from fewshot.data.images import as_tensor
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.evaluation.inspection import replace_regularizers
from fewshot.evaluation.intervals import this_test_set
from fewshot.model import Model
from fewshot.regularizers import Guide
from fewshot.reports.sweep import markdown
from fewshot.runs import Run

HERE = Path(__file__).resolve().parent.parent
COLUMNS = (
    "network", "trained with", "mask of", "seed", "off", "own class", "told another", "named as told", "class named",
)  # fmt: skip
WAYS = ("off", "own", "another", "as told", "named")
PROTOCOL = Protocol(ways=5, shots=5, queries=3)
BATCH = 100
Shares = Mapping[str, float]
"""By `WAYS`: the share of a batch's images that are answered correctly, or as told."""
Answer = Callable[[Tensor], Tensor]
"""Embeddings (B, D) -> the predicted classes (B,)."""


@torch.no_grad()
def ask(network: Model, images: Tensor, weights: Tensor, own: Tensor, asked: Tensor, name: Answer, seed: int) -> Shares:
    """By `WAYS`, the share of correct answers in one batch, or of those as told.

    images (B, 3, size, size); weights (K, C) of the classes 0..K-1; own (B,): each image's class; asked (B,) bool: the
    images that are asked about and guided in several ways. CamDrop draws the same noise each time, and batch norm
    stays in evaluation mode.
    """

    def answers(guide: Tensor) -> Tensor:
        torch.manual_seed(seed)
        for reg in network.backbone.regularizers:
            reg.train()
        with network.backbone.guided_by(Guide(weights, guide, guide)):
            z = network(images)
        network.eval()
        return name(z)

    shift = torch.randint(1, len(weights), own.shape, generator=torch.Generator().manual_seed(seed))
    other = torch.where(asked, (own + shift) % len(weights), own)
    off, told = name(network(images)), answers(other)
    named = answers(torch.where(asked, off, own))
    found = (off == own, answers(own) == own, told == own, told == other, named == own)
    return {way: each[asked].float().mean().item() for way, each in zip(WAYS, found, strict=True)}


def of_tasks(network: Model, split: Split, tasks: int) -> Iterator[Shares]:
    """Task by task: the queries are asked about, and support images are always guided by their own class."""
    ways, shots, each = PROTOCOL.ways, PROTOCOL.shots, PROTOCOL.images_per_class
    own = torch.arange(ways).repeat_interleave(each)
    asked = (torch.arange(each) >= shots).repeat(ways)
    labels = own[~asked][None]

    def name(z: Tensor) -> Tensor:
        named = own.clone()
        named[asked] = network.solve(z[~asked][None], labels, z[asked][None], ways)[0].argmax(1)
        return named

    for number, episode in enumerate(EpisodeSampler(split, PROTOCOL, seed=0).draw(0, tasks)):
        images = to_unit(as_tensor(split.images[episode.ravel()]))
        with torch.no_grad():
            weights = network.head.class_weights(network(images)[~asked][None], labels, ways)
        yield ask(network, images, network.backbone.channel_weights(weights)[0], own, asked, name, number)


def of_images(network: Model, split: Split, count: int) -> Iterator[Shares]:
    """Batch by batch, `count` images in all, drawn from the split."""
    classifier = network.classifier
    assert classifier is not None
    weights = network.backbone.channel_weights(classifier.weight.detach())
    chosen = np.random.default_rng(0).permutation(len(split.images))[:count]
    for start in range(0, count, BATCH):
        index = chosen[start : start + BATCH]
        images, own = to_unit(as_tensor(split.images[index])), torch.from_numpy(split.labels[index])
        asked = torch.ones(len(own), dtype=torch.bool)
        yield ask(network, images, weights, own, asked, lambda z: classifier(z).argmax(1), start)


def masks(folder: Path, folders: Sequence[Path]) -> list[str]:
    """The masks to ask a run's network with: CamDrop as in its training; if it had none, as in each run like it."""
    config = Run.open(folder).config
    if "camdrop" in config.reg:
        return [_mask(config.reg)]
    others = (Run.open(each).config for each in folders)
    alike = (each.reg for each in others if (each.backbone, each.dataset) == (config.backbone, config.dataset))
    return list(dict.fromkeys(_mask(reg) for reg in alike if "camdrop" in reg)) or ["camdrop"]


def _mask(reg: str) -> str:
    """CamDrop's text without `label`, which says where its class comes from: that is varied here."""
    spec = next(spec for spec in parse(reg) if spec.name == "camdrop")
    return str(replace(spec, options={name: value for name, value in spec.options.items() if name != "label"}))


def line(folder: Path, mask: str, classifier: bool, args: argparse.Namespace) -> list[str]:
    """A row of the table: a run's network, asked with this mask."""
    run = Run.open(folder)
    run.check_code(dataset=True)
    network, config = fewshot.load(folder, device="cpu"), run.config
    if classifier != (network.classifier is not None):
        raise UserError(f"{folder}: give runs of episodes as --runs, and those of classifiers as --classifiers")
    replace_regularizers(network, config.backbone, parse(mask))
    dataset = open_dataset(config.dataset, args.data_root)
    network.eval()
    split = dataset["test" if classifier else "val"]
    shares = list(of_images(network, split, args.images) if classifier else of_tasks(network, split, args.tasks))
    cells = []
    for way in WAYS:
        each = np.array([share[way] for share in shares])
        found = this_test_set(each)
        cells.append(f"{100 * found.estimate:.1f} ± {100 * found.half_width:.1f}")
    return [f"{config.backbone}, {config.dataset}", config.reg, mask, str(config.seed), *cells]


def parser() -> Parser:
    parser = Parser(prog="scripts.camdrop_labels", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--tasks", type=int, default=400, help="validation tasks (default: 400)")
    parser.add_argument("--images", type=int, default=2000, help="test images of classifiers (default: 2000)")
    parser.add_argument("--runs", nargs="+", type=Path, default=[], metavar="RUN", help="runs trained in episodes")
    parser.add_argument("--classifiers", nargs="+", type=Path, default=[], metavar="RUN", help="runs of classifiers")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "camdrop-labels.md", help="the page")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if not args.runs + args.classifiers:
        raise UserError("give run folders: --runs, --classifiers")
    if args.tasks < 2:
        raise UserError(f"--tasks {args.tasks}: an interval takes two or more")
    if args.images < 2 * BATCH or args.images % BATCH:
        raise UserError(f"--images {args.images}: give a multiple of {BATCH}, from {2 * BATCH} on")
    destination(args.out)
    tables = []
    if args.runs:
        said = f"{args.tasks} tasks of validation classes, {PROTOCOL.ways}-way {PROTOCOL.shots}-shot"
        said += f" with {PROTOCOL.queries} queries; chance is {100 / PROTOCOL.ways:.0f}"
        tables.append((f"Episodes: {said}.", False))
    if args.classifiers:
        tables.append((f"Classifiers: {args.images:,} test images; chance is one of the classes.", True))
    text = "\n\n".join(f"{title}\n\n{table(classifier, args)}" for title, classifier in tables)
    write_output(args.out, page(text, args).encode())
    terminal().print(text)


def table(classifier: bool, args: argparse.Namespace) -> str:
    folders = args.classifiers if classifier else args.runs
    rows = [line(folder, mask, classifier, args) for folder in folders for mask in masks(folder, folders)]
    return markdown(COLUMNS, rows)


def page(tables: str, args: argparse.Namespace) -> str:
    usual = parser()
    counts = {name: getattr(args, name) for name in ("tasks", "images")}
    flags = "".join(f" --{name} {value}" for name, value in counts.items() if value != usual.get_default(name))
    for name, folders in (("runs", args.runs), ("classifiers", args.classifiers)):
        names = dict.fromkeys(re.sub(r"-seed\d+$", "-seed?", str(folder)) for folder in folders)
        flags += f" --{name} " * bool(names) + " ".join(names)
    early = []
    for each in map(Run.open, args.runs + args.classifiers):
        if (step := each.environment["best_step"]) < each.steps / 2:
            early.append(f"{each.config.reg}, seed {each.config.seed}: step {step:,} of {each.steps:,}")
    of = f" ({'; '.join(early)})" * bool(early)
    return f"""# CamDrop's mask tells an image's class

CamDrop drops blocks from the channels that speak for an image's own class. So its mask tells the class that the network
is to find out. Shares of images in %, on images that the networks were not trained on, without augmentation and with
batch norm in evaluation mode; ± is Student's 95% interval over tasks, of classifiers over batches of {BATCH} images:

- off: right without regularizers, as in evaluation;
- own class: right with CamDrop, each image guided by its own class, as in training;
- told another: right with CamDrop, each image guided by another class than its own (of episodes, each query; support
  images by their own); named as told: answered with that other class;
- class named: right with CamDrop, each image guided by the class that the network names for it (`label=named`).

{tables}

The weights are those of the best validation{of}.
Networks that were trained without CamDrop are the control: they get its mask here for the first time.

    python scripts/camdrop_labels.py{flags}
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
