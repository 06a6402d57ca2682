"""Does a query's class reach the network through CamDrop's mask?

    python scripts/camdrop_labels.py --runs runs/mini-imagenet-42/camdrop-seed? runs/mini-imagenet-42/none-seed?

CamDrop drops blocks from the channels that speak for an image's own class, so its mask depends on that class. In an
episode that class is what the head is to find out. Here trained networks solve episodes of validation classes in four
ways: without regularizers, as in evaluation; with CamDrop, as in training; with CamDrop, but each query guided by
another class than its own; and with CamDrop, each query guided by the class that the network names for it. Networks
that were trained without CamDrop are the control: what its mask does to them, they have not learned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fewshot
from fewshot.core.components import parse
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.data import Split, open_dataset
from fewshot.data.augment import to_unit
from fewshot.data.images import as_tensor
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.evaluation.inspection import replace_regularizers
from fewshot.model import Model
from fewshot.regularizers import Guide
from fewshot.reports.sweep import markdown
from fewshot.runs import Run

HERE = Path(__file__).resolve().parent.parent
COLUMNS = ("trained with", "seed", "off", "own class", "told another", "named as told", "class named")
WAYS = ("off", "own", "another", "as told", "named")


@torch.no_grad()
def answers(network: Model, images: Tensor, protocol: Protocol, seed: int) -> dict[str, float]:
    """By `WAYS`, the share of right queries of an episode's images (W, S + Q, 3, size, size), or of those as told.

    CamDrop draws the same noise in all of them. Batch norm stays in evaluation mode.
    """
    ways, shots = protocol.ways, protocol.shots
    truth = torch.arange(ways).repeat_interleave(protocol.images_per_class).view(ways, -1)
    batch = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    support, labels, query = _task(network(batch), shots, ways)
    weights = network.backbone.channel_weights(network.head.class_weights(support, labels, ways)).flatten(0, 1)

    def named(guide: Tensor) -> Tensor:
        """(W, Q): the classes that the head names where each image is guided by a class, `guide` (W, S + Q)."""
        torch.manual_seed(seed)
        for reg in network.backbone.regularizers:
            reg.train()
        with network.backbone.guided_by(Guide(weights, guide.flatten(), guide.flatten())):
            z = network(batch)
        network.eval()
        return network.solve(*_task(z, shots, ways), ways)[0].argmax(1).view(ways, -1)

    off = network.solve(support, labels, query, ways)[0].argmax(1).view(ways, -1)
    own = truth[:, shots:]
    shift = torch.randint(1, ways, own.shape, generator=torch.Generator().manual_seed(seed))
    other = (own + shift) % ways
    told = named(torch.cat([truth[:, :shots], other], 1))
    guided = named(torch.cat([truth[:, :shots], off], 1))
    right = (off == own, named(truth) == own, told == own, told == other, guided == own)
    return {way: each.float().mean().item() for way, each in zip(WAYS, right, strict=True)}


def _task(z: Tensor, shots: int, ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (W * (S + Q), D) -> support (1, W * S, D), its labels (1, W * S), query (1, W * Q, D)."""
    z = z.view(ways, -1, z.shape[1])
    labels = torch.arange(ways).repeat_interleave(shots)[None]
    return z[:, :shots].flatten(0, 1)[None], labels, z[:, shots:].flatten(0, 1)[None]


def measure(network: Model, split: Split, protocol: Protocol, tasks: int) -> dict[str, np.ndarray]:
    """By `WAYS`: the shares (tasks,) of right queries, or of those as told."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number, episode in enumerate(EpisodeSampler(split, protocol, seed=0).draw(0, tasks)):
        images = to_unit(as_tensor(split.images[episode.ravel()]))
        shares = answers(network, images.view(*episode.shape, *images.shape[1:]), protocol, number)
        for way, share in shares.items():
            found[way].append(share)
    return {way: np.array(shares) for way, shares in found.items()}


def opened(folder: Path) -> tuple[Model, Run]:
    """A run's network, with CamDrop where it was trained, else at its default sites in place of what it had."""
    network, run = fewshot.load(folder, device="cpu"), Run.open(folder)
    if not network.backbone.guided:
        replace_regularizers(network, run.config.backbone, parse("camdrop"))
    return network.eval(), run


def line(folder: Path, args) -> list[str]:
    network, run = opened(folder)
    config = run.config
    if config.dataset != args.dataset:
        raise UserError(f"{folder} was trained on {config.dataset}: give runs on {args.dataset}, or --dataset")
    split = open_dataset(args.dataset, args.data_root)["val"]
    found = measure(network, split, Protocol(args.ways, args.shots, args.queries), args.tasks)
    half_widths = {way: 1.96 * shares.std(ddof=1) / len(shares) ** 0.5 for way, shares in found.items()}
    return [
        config.reg, str(config.seed),
        *(f"{100 * found[way].mean():.1f} ± {100 * half_widths[way]:.1f}" for way in WAYS),
    ]  # fmt: skip


def parser() -> Parser:
    parser = Parser(prog="scripts.camdrop_labels", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--dataset", default="mini-imagenet-42", help="the runs' own (default: mini-imagenet-42)")
    parser.add_argument("--ways", type=int, default=5, help="classes in a task (default: 5)")
    parser.add_argument("--shots", type=int, default=5, help="support images a class (default: 5)")
    parser.add_argument("--queries", type=int, default=3, help="query images a class (default: 3)")
    parser.add_argument("--tasks", type=int, default=400, help="validation tasks (default: 400)")
    parser.add_argument("--runs", nargs="+", type=Path, required=True, metavar="RUN", help="run folders")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "camdrop-labels.md", help="the page")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    table = markdown(COLUMNS, [line(folder, args) for folder in args.runs])
    write_atomic(args.out, page(table, args, [Run.open(folder) for folder in args.runs]).encode())
    terminal().print(table)


def page(table: str, args, runs: Sequence[Run]) -> str:
    best = sorted({run.environment["best_step"] for run in runs if run.config.reg.startswith("camdrop")})
    steps = ", ".join(f"{step:,}" for step in best)
    names = dict.fromkeys(re.sub(r"-seed\d+$", "-seed?", str(run.folder)) for run in runs)
    usual, given = vars(parser().parse_args(["--runs", "run"])), vars(args)
    said = [name for name in ("dataset", "ways", "shots", "queries", "tasks") if given[name] != usual[name]]
    flags = "".join(f" --{name} {given[name]}" for name in said)
    return f"""# CamDrop's mask tells the class of a query

CamDrop drops blocks from the channels that speak for an image's own class. In an episode a query's class is what the
head is to find out. Networks solve {args.tasks} tasks of the validation classes of {args.dataset},
{args.ways}-way {args.shots}-shot with {args.queries} queries, without augmentation, with batch norm in evaluation mode.
Shares of queries in %, with 95% intervals over tasks; chance is {100 / args.ways:.0f}:

- off: right without regularizers, as in evaluation;
- own class: right with CamDrop, each image guided by its own class, as in training;
- told another: right with CamDrop, each query guided by another class than its own; named as told: answered with that
  other class;
- class named: right with CamDrop, each query guided by the class that the network names for it (`label=named`).

{table}

Weights of the best validation, of `camdrop` those of step {steps}. Networks that were trained without CamDrop are the
control: they get its mask here for the first time, at its default sites.

    python scripts/camdrop_labels.py{flags} --runs {" ".join(names)}
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
