"""What scripts/bench.py measures. It runs each in a process of its own: bench_contestants.py NAME CONFIG STEPS

A contestant is a function (config, steps) -> figures, marked by `@contestant`. It does its work `steps` times after a
warm-up, or raises Declined. Importing fewshot.compute changes how torch allocates memory, so the contestants that
show torch as it comes import nothing that does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot import cli
from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.data import open_dataset
from fewshot.errors import UserError

WINDOW = 10  # steps between two looks at the clock, as the training loop has it: each look waits for the device
STEPS = {"cpu": 10, "cuda": 200}  # timed in a turn, where none are asked for
CONTESTANTS: dict[str, Callable[[TrainConfig, int], dict[str, Any]]] = {}


class Declined(Exception):
    """Why a contestant does not take part, for people to read."""


def contestant(function: Callable) -> Callable:
    CONTESTANTS[function.__name__] = function
    return function


@contestant
def machine(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Measures nothing: where the contestants meet, and what is left open (`auto`, 0) comes to there."""
    from fewshot import compute

    where = compute.choose(config.device, config.precision, config.threads)
    windows = -(-(steps or STEPS[where.device.type]) // WINDOW)
    return {
        "device": str(where.device), "precision": where.precision, "threads": torch.get_num_threads(),
        "steps": windows * WINDOW, "name": compute.describe(where.device),
        "processor": compute.describe(torch.device("cpu")), "images": images_a_step(config),
        "cuda": torch.version.cuda if where.device.type == "cuda" else None,
    }  # fmt: skip


@contestant
def loop(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The training loop itself, in a temporary run folder: episodes, augmentation, head, log and all but validation."""
    from rich.console import Console

    from fewshot import compute
    from fewshot.data.images import channel_statistics
    from fewshot.learning.display import Display
    from fewshot.learning.loop import train
    from fewshot.model import Model
    from fewshot.runs import Run

    class Done(Exception):
        pass

    class Last(Display):
        """Shows nothing, and leaves the loop after the last timed step: validation would come after a later one."""

        def step(self, step: int, *_: float) -> None:
            if step >= last:
                raise Done

    last = warm_up(steps) + steps
    config = dataclasses.replace(config, epochs=1, episodes_per_epoch=(last + 1) * config.episodes_per_batch)
    where = compute.choose(config.device, config.precision, config.threads)
    dataset = open_dataset(config.dataset, config.data_root)
    model = Model(config, dataset.image_size, *channel_statistics(dataset.name, dataset["train"])).to(where.device)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(config, str(Path(folder) / "run"), {})
        with contextlib.suppress(Done):
            train(run, config, dataset, model, where, Last(Console(quiet=True)))
        rates = [row["images_per_second"] for row in run.metrics() if row["step"] > last - steps]
    return {"images_per_second": statistics.median(rates)}


@contestant
def compiled(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The training loop with `--compile`; compiling falls into the warm-up."""
    from fewshot import compute

    try:
        compute.check_compiler()
    except UserError as error:
        raise Declined(str(error)) from None
    return loop(dataclasses.replace(config, compile=True), steps)


@contestant
def bare(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The loop's limit: its network's forward, backward and optimizer step, on one batch that is already there."""
    from fewshot import backbones, compute

    where = compute.choose(config.device, config.precision, config.threads)
    if where.device.type == "cpu":
        compute.keep_heap()
    batch = random_batch(config).contiguous(memory_format=torch.channels_last)
    network = backbones.build(config.backbone, config.reg, batch.shape[-1])
    network.to(where.device, memory_format=torch.channels_last)
    rate = timed(optimizer_step(network, batch, config, fused=True), len(batch), steps, where.device)
    return {"images_per_second": rate, "flops_per_image": flops(network, batch) / len(batch)}


@contestant
def plain(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The bare step of Conv-4 as the field writes it: textbook order, NCHW, torch's own settings and allocation."""
    if config.backbone != "conv4":
        raise Declined("the textbook step is Conv-4's")
    torch.set_num_threads(config.threads)
    layers = [
        layer
        for inputs in (3, 64, 64, 64)
        for layer in (nn.Conv2d(inputs, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
    ]
    batch = random_batch(config)
    network = nn.Sequential(*layers, nn.Flatten()).to(batch.device)
    return {"images_per_second": timed(optimizer_step(network, batch, config), len(batch), steps, batch.device)}


@contestant
def learn2learn(config: TrainConfig, steps: int) -> dict[str, Any]:
    """ProtoNet in learn2learn on the same images, as its mini-ImageNet example trains it.

    Of learn2learn: MetaDataset, Taskset, the transforms NWays, KShots, LoadData, RemapLabels, ConsecutiveLabels, and
    CNN4Backbone. Besides, as in its example: a DataLoader of tasks without workers, an Adam step after every single
    episode, the loss looked at each time. The augmentation is that of its `lee2019` benchmark, on PIL images.
    A step is as many episodes as one of the loop's.
    """
    if config.backbone != "conv4":
        raise Declined("compared on its Conv-4")
    if importlib.util.find_spec("learn2learn") is None:
        raise Declined("not installed: sh scripts/install_learn2learn.sh PYTHON, then --learn2learn PYTHON")
    import learn2learn as l2l
    from learn2learn.data.transforms import ConsecutiveLabels, KShots, LoadData, NWays, RemapLabels
    from PIL import Image
    from torch.utils import data
    from torchvision import transforms

    from fewshot.data.images import channel_statistics

    torch.set_num_threads(config.threads)
    device = torch.device(config.device)
    dataset = open_dataset(config.dataset, config.data_root)
    split, labels = dataset["train"], dataset["train"].labels.tolist()
    shots, per_class = config.shots, config.shots + config.queries
    augment = transforms.Compose([
        transforms.RandomCrop(dataset.image_size, padding=config.crop_padding),
        transforms.ColorJitter(config.jitter, config.jitter, config.jitter),
        transforms.RandomHorizontalFlip(0.5 if config.mirror else 0.0),
        transforms.ToTensor(),
        transforms.Normalize(*channel_statistics(dataset.name, split)),
    ])  # fmt: skip

    class Images(data.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, number: int) -> tuple[Tensor, int]:
            return augment(Image.fromarray(split.images[number])), labels[number]

    images = l2l.data.MetaDataset(Images(), indices_to_labels=dict(enumerate(labels)))
    choose = [NWays(images, config.ways), KShots(images, per_class), LoadData(images), RemapLabels(images)]
    tasks = l2l.data.Taskset(images, task_transforms=[*choose, ConsecutiveLabels(images)])
    loader = data.DataLoader(tasks, shuffle=True, pin_memory=device.type == "cuda")
    network = l2l.vision.models.CNN4Backbone(hidden_size=64, channels=3, max_pool=True).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)

    def episode() -> None:
        x, y = (part.squeeze(0).to(device) for part in next(iter(loader)))
        z = network(x).unflatten(0, (config.ways, per_class))  # (W, S+Q, D)
        distances = (z[:, shots:, None] - z[:, :shots].mean(1)).square().sum(3)  # (W, Q, W)
        loss = F.cross_entropy(-distances.flatten(0, 1), y.view(config.ways, per_class)[:, shots:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def step() -> None:
        for _ in range(config.episodes_per_batch):
            episode()

    return {"images_per_second": timed(step, images_a_step(config), steps, device), "version": l2l.__version__}


@contestant
def product(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Products of large square matrices in the network's precision: as much arithmetic as the machine can do."""
    device = torch.device(config.device)
    torch.set_num_threads(config.threads)
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    return {"flops_per_second": timed(lambda: torch.mm(a, b, out=out), 2 * side**3, steps, device)}


def images_a_step(config: TrainConfig) -> int:
    return config.episodes_per_batch * config.ways * (config.shots + config.queries)


def random_batch(config: TrainConfig) -> Tensor:
    """(B, 3, S, S) float32 on the device, of as many images as the loop has in a step."""
    size = open_dataset(config.dataset, config.data_root).image_size
    return torch.randn(images_a_step(config), 3, size, size, device=config.device)


def optimizer_step(network: nn.Module, batch: Tensor, config: TrainConfig, **options: bool) -> Callable[[], None]:
    """Forward, backward and the loop's SGD; `options` are the optimizer's.

    At a learning rate of 0, which costs the same: on one random batch the weights would soon run off to where
    numbers are denormal, and a CPU is slow.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=config.momentum, nesterov=config.momentum > 0,
        weight_decay=config.weight_decay, **options,
    )  # fmt: skip

    def step() -> None:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            z = network(batch)
        optimizer.zero_grad(set_to_none=True)
        z.float().square().mean().backward()
        optimizer.step()

    return step


def flops(network: nn.Module, batch: Tensor) -> int:
    """Floating-point operations of a forward and backward pass, counted without computing anything."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network.to("meta")(batch.to("meta")).sum().backward()
    return counter.get_total_flops()


def warm_up(steps: int) -> int:
    """Steps that come before the timed ones: half as many, in whole windows."""
    return -(-steps // (2 * WINDOW)) * WINDOW


def timed(step: Callable[[], object], work: float, steps: int, device: torch.device) -> float:
    """Work a second, if a step does `work`: the median over the windows after the warm-up."""
    for _ in range(warm_up(steps)):
        step()
    rates = []
    for _ in range(steps // WINDOW):
        wait_for(device)
        begin = time.perf_counter()
        for _ in range(WINDOW):
            step()
        wait_for(device)
        rates.append(WINDOW * work / (time.perf_counter() - begin))
    return statistics.median(rates)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: list[str] | None = None) -> None:
    """Prints the figures as one line of JSON, its last."""
    name, values, steps = argv or sys.argv[1:]
    config = TrainConfig(**configs.from_json(json.loads(values), "the settings"))
    try:
        figures = CONTESTANTS[name](config, int(steps))
    except Declined as reason:
        figures = {"declined": str(reason)}
    if torch.cuda.is_initialized():
        figures["device_bytes"] = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    print(json.dumps(figures | {"torch": torch.__version__}))


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
