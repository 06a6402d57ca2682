"""Does a query's class reach the network through CamDrop's mask?

    python scripts/camdrop_labels.py --runs runs/mini-imagenet-42/camdrop-seed?

CamDrop drops blocks from the channels that speak for an image's own class, so its mask depends on that class. In an
episode that class is what the head is to find out. Here networks that were trained with CamDrop solve episodes of
validation classes in four ways: with the regularizer off, as in evaluation; on, as in training; on, but each query
guided by another class than its own; and on, each query guided by the class that the network names for it. If the mask
told nothing, the second and the third way would find the true class equally often.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

import fewshot
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.data import open_dataset
from fewshot.data.augment import to_unit
from fewshot.data.images import as_tensor
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.regularizers import Guide
from fewshot.runs import Run

HERE = Path(__file__).resolve().parent.parent
COLUMNS = ("regularizer", "seed", "off", "on, own class", "told another", "named as told", "on, named class")


def switch(network, on: bool) -> None:
    """Regularizers alone: batch norm stays in evaluation mode, so that nothing else differs."""
    for reg in network.backbone.regularizers:
        reg.train(on)


@torch.no_grad()
def answers(network, episode: Tensor, protocol: Protocol) -> dict[str, tuple[Tensor, Tensor]]:
    """{how: (classes named (W * Q,), classes told (W * Q,))} of an episode's images (W, S + Q, 3, size, size)."""
    ways, shots = protocol.ways, protocol.shots
    images = episode.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(ways).repeat_interleave(protocol.images_per_class).view(ways, -1)

    def named(own: Tensor | None) -> Tensor:
        """`own` (W, S + Q): the class by which each image is guided; None: regularizers off."""
        switch(network, own is not None)
        guide = None if own is None else Guide(weights, own.flatten())
        with network.backbone.guided_by(guide):
            z = network(images).view(ways, -1, network.backbone.features)
        switch(network, False)
        return network.solve(*_task(z, shots), ways)[0].argmax(1)

    z = network(images).view(ways, -1, network.backbone.features)
    weights = network.head.class_weights(z[None, :, :shots].flatten(1, 2), labels[None, :, :shots].flatten(1), ways)
    weights = network.backbone.channel_weights(weights).flatten(0, 1)

    other = labels.clone()
    other[:, shots:] = (labels[:, shots:] + torch.randint(1, ways, labels[:, shots:].shape)) % ways
    off = named(None)
    predicted = labels.clone()
    predicted[:, shots:] = off.view(ways, -1)
    told = {"off": None, "own": labels, "another": other, "predicted": predicted}
    return {how: (named(own), (labels if own is None else own)[:, shots:].flatten()) for how, own in told.items()}


def _task(z: Tensor, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (W, S + Q, D) -> support (1, W * S, D), its labels (1, W * S), query (1, W * Q, D)."""
    labels = torch.arange(len(z)).repeat_interleave(shots)[None]
    return z[:, :shots].flatten(0, 1)[None], labels, z[:, shots:].flatten(0, 1)[None]


def measure(network, split, protocol: Protocol, tasks: int) -> dict[str, float]:
    """Shares of all queries, %: true classes found, and, told another class, how often that is named."""
    torch.manual_seed(0)
    truth = torch.arange(protocol.ways).repeat_interleave(protocol.queries)
    found: dict[str, list[Tensor]] = {}
    for episode in EpisodeSampler(split, protocol, seed=0).draw(0, tasks):
        images = to_unit(as_tensor(split.images[episode.ravel()]))
        for how, (named, told) in answers(network, images.view(*episode.shape, *images.shape[1:]), protocol).items():
            found.setdefault(how, []).append((named == truth).float())
            if how == "another":
                found.setdefault("as told", []).append((named == told).float())
    return {how: 100 * torch.cat(right).mean().item() for how, right in found.items()}


def parser() -> Parser:
    parser = Parser(prog="scripts.camdrop_labels", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--tasks", type=int, default=400, help="validation episodes (default: 400)")
    parser.add_argument("--runs", nargs="+", type=Path, required=True, metavar="RUN", help="runs trained with camdrop")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "camdrop-labels.md", help="the table")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    rows = []
    for folder in args.runs:
        config = Run.open(folder).config
        if not config.reg.startswith("camdrop"):
            raise UserError(f"{folder} was trained with {config.reg}: give runs of camdrop")
        network = fewshot.load(folder, device="cpu")
        protocol = Protocol(config.ways, config.shots, config.queries)
        found = measure(network, open_dataset(config.dataset, args.data_root)["val"], protocol, args.tasks)
        shares = (f"{found[how]:.1f}" for how in ("off", "own", "another", "as told", "predicted"))
        rows.append((config.reg, str(config.seed), *shares))
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    write_atomic(args.out, page(lines, args.tasks, sorted({stem(folder) for folder in args.runs})).encode())
    terminal().print("\n".join(lines))


def stem(folder: Path) -> str:
    return str(folder).rpartition("-seed")[0]


def page(lines: list[str], tasks: int, names: list[str]) -> str:
    return f"""# CamDrop tells the network what it is to find

CamDrop drops blocks from the channels that speak for an image's own class. In an episode a query's class is what the
head is to find out, and it can be read from the mask. Networks that were trained with CamDrop solve {tasks} tasks of
validation classes, as in training; shares of queries in %, where chance is 20:

- off: right without the regularizer, as in evaluation;
- on, own class: right with it, as in training;
- told another: right with it, but each query guided by another class than its own; named as told: answered with that
  other class;
- on, named class: right with it, each query guided by the class that the network names for it (`label=named`).

{chr(10).join(lines)}

Networks at their best validation. Batch norm is in evaluation mode throughout.

    python scripts/camdrop_labels.py --runs {" ".join(f"{name}-seed?" for name in names)}
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
