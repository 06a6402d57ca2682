"""Training: the loop, its limit, the step as the field writes it, learn2learn, and the machine's matrix products.

The process is not claimed (core/process.py), because some cases show torch with its own settings. Our cases ask for
huge pages, as our commands do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    STEPS,
    WINDOW,
    Declined,
    case,
    flops,
    images_a_step,
    optimizer_step,
    random_batch,
    timed,
    warm_up,
)  # fmt: skip
from peer import Peer
from torch import nn

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.process import huge_pages
from fewshot.data import open_dataset


@case
def machine(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Measures nothing: says where the cases run, and what open settings (`auto`, 0) come to there."""
    from fewshot.core import compute

    where = compute.choose(config.device, config.precision)
    compute.settle(where, config.threads)
    windows = -(-(steps or STEPS[where.device.type]) // WINDOW)
    return {
        "device": str(where.device), "precision": where.precision, "threads": torch.get_num_threads(),
        "steps": windows * WINDOW, "name": compute.describe(where.device),
        "processor": compute.describe(torch.device("cpu")), "images": images_a_step(config),
        "cuda": torch.version.cuda if where.device.type == "cuda" else None,
    }  # fmt: skip


@case
def loop(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The training loop itself, in a temporary run folder: episodes, augmentation, head, log, all but validation."""
    from fewshot import experiment
    from fewshot.experiment.setup import plan
    from fewshot.learning import optimizer
    from fewshot.learning.loop import train
    from fewshot.learning.reporter import Reporter
    from fewshot.runs import Run

    class Done(Exception):
        pass

    class Last(Reporter):
        """Leaves the loop after the last timed step: validation would come after a later one."""

        def step(self, step: int, *_: float) -> None:
            if step >= last:
                raise Done

    last = warm_up(steps) + steps
    config = dataclasses.replace(config, epochs=1, episodes_per_epoch=(last + 1) * config.episodes_per_batch)
    huge_pages()
    setup = experiment.prepare(config)
    if (short := setup.regime.pace(config).steps) <= last:  # an epoch of images has an end: then as many as it takes
        config = dataclasses.replace(config, epochs=last // short + 1, val_every=last // short + 1)
    model = setup.model.to(setup.compute.device)
    sgd = optimizer.build(config.optimizer, model.parameters(), config.lr, config.momentum, config.weight_decay)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(config, Path(folder) / "run", {})
        with contextlib.suppress(Done):
            train(run, model, setup.regime, sgd, plan(config, setup.regime), Last())
        rates = [row["images_per_second"] for row in run.metrics() if row["step"] > last - steps]
    return {"images_per_second": statistics.median(rates)}


@case
def compiled(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The training loop with `--compile`; compiling is part of the warm-up."""
    from fewshot.core import compute

    try:
        compute.check_compiler()
    except UserError as error:
        raise Declined(str(error)) from None
    return loop(dataclasses.replace(config, compile=True), steps)


@case
def bare(config: TrainConfig, steps: int) -> dict[str, Any]:
    """The loop's limit: its network's forward, backward and optimizer step, on one batch that is already there."""
    from fewshot import backbones
    from fewshot.core import compute

    huge_pages()
    where = compute.choose(config.device, config.precision)
    compute.settle(where, config.threads)
    if where.device.type == "cpu":
        compute.keep_heap()
    batch = random_batch(config).contiguous(memory_format=torch.channels_last)
    network = backbones.build(config.backbone, config.reg, batch.shape[-1])
    network.to(where.device, memory_format=torch.channels_last)
    rate = timed(optimizer_step(network, batch, config, fused=True), len(batch), steps, where.device)
    return {"images_per_second": rate, "flops_per_image": flops(network, batch) / len(batch)}


@case
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


@case
def learn2learn(config: TrainConfig, steps: int) -> dict[str, Any]:
    """ProtoNet trained on the same images as learn2learn's example does: see `Peer`.

    Also as in its example: an Adam step after every single episode, with the loss read each time. The augmentation is
    that of its `lee2019` benchmark, on PIL images. A step has as many episodes as one of the loop's.
    """
    from PIL import Image
    from torchvision import transforms

    if config.regime != "episodic":
        raise Declined("its example trains on episodes")
    dataset = open_dataset(config.dataset, config.data_root)
    split = dataset["train"]
    augment = transforms.Compose([
        transforms.RandomCrop(dataset.image_size, padding=config.crop_padding),
        transforms.ColorJitter(config.jitter, config.jitter, config.jitter),
        transforms.RandomHorizontalFlip(0.5 if config.mirror else 0.0),
        transforms.ToTensor(),
        transforms.Normalize(dataset.mean, dataset.std),
    ])  # fmt: skip
    peer = Peer(config, split, lambda number: augment(Image.fromarray(split.images[number])))
    tasks = peer.tasks(config.shots + config.queries)
    optimizer = torch.optim.Adam(peer.network.parameters(), lr=0.001)

    def episode() -> None:
        distances, labels = peer.solve(tasks, config.shots)
        loss = F.cross_entropy(-distances, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    def step() -> None:
        for _ in range(config.episodes_per_batch):
            episode()

    rate = timed(step, images_a_step(config), steps, peer.device)
    return {"images_per_second": rate, "version": peer.version}


@case
def product(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Products of large square matrices in the network's precision: as much arithmetic as the machine can do."""
    device = torch.device(config.device)
    torch.set_num_threads(config.threads)
    side = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    return {"flops_per_second": timed(lambda: torch.mm(a, b, out=out), 2 * side**3, steps, device)}
