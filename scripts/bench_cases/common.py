"""What cases share: the registry, the clock, the batch, the optimizer's step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.config import TrainConfig
from fewshot.core.components import parse
from fewshot.data import open_dataset
from fewshot.learning.regimes import FAMILY

WINDOW = 10  # steps between two looks at the clock, as the training loop has it: each look waits for the device
STEPS = {"cpu": 10, "cuda": 200}  # timed in a turn, if none are asked for
CASES: dict[str, Callable[[TrainConfig, int], dict[str, Any]]] = {}


class Declined(Exception):
    """Why a case does not take part."""


def case(function: Callable) -> Callable:
    CASES[function.__name__] = function
    return function


def images_a_step(config: TrainConfig) -> int:
    """Images that the network embeds in a step of the loop."""
    regime, *_ = parse(config.regime)
    if regime.name == "supervised":
        _, options = FAMILY.check(regime)
        return int(options.get("batch", 64)) * (4 if options.get("rotation") else 1)
    return config.episodes_per_batch * config.ways * (config.shots + config.queries)


def random_batch(config: TrainConfig) -> Tensor:
    """(B, 3, S, S) float32 on the device, of as many images as the loop has in a step."""
    size = open_dataset(config.dataset, config.data_root).image_size
    return torch.randn(images_a_step(config), 3, size, size, device=config.device)


def optimizer_step(network: nn.Module, batch: Tensor, config: TrainConfig, **options: bool) -> Callable[[], None]:
    """Forward, backward and the loop's SGD; `options` are the optimizer's.

    The learning rate is 0, which costs the same: on one random batch the weights would soon drift to where numbers are
    denormal, and a CPU is slow.
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
