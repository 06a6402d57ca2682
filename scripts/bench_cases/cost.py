"""What each regularizer adds to a step: all of them take turns within one process, step by step."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from common import case, images_a_step, wait_for

from fewshot import regularizers
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.data import open_dataset


@case
def cost(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Seconds of each of `steps` rounds, and the parameters, by regularizer: `none` and all that the backbone takes.

    A step is the loop's on one batch that is already there: guide, forward, head, backward, optimizer. Its learning
    rate is 0, for on random images the weights would run off.
    """
    from fewshot.core import compute
    from fewshot.model import Model

    where = compute.choose(config.device, config.precision, config.threads)
    if where.device.type == "cpu":
        compute.keep_heap()
    size = open_dataset(config.dataset, config.data_root).image_size
    batch = torch.rand(images_a_step(config), 3, size, size, device=where.device)
    batch = batch.contiguous(memory_format=torch.channels_last)
    names = sorted(regularizers.FAMILY.names(), key=lambda name: name != "none")
    steppers, parameters = {}, {}
    for name in names:
        one = dataclasses.replace(config, reg=name)
        try:
            model = Model(one, size, (0.5,) * 3, (0.25,) * 3).to(where.device).train()
        except UserError:  # it declines the backbone
            continue
        steppers[name], parameters[name] = _stepper(model, batch, one, where), model.parameter_count
    seconds = {name: [] for name in steppers}
    for number in range(1 + steps):
        for name, step in steppers.items():
            wait_for(where.device)
            begin = time.perf_counter()
            step()
            wait_for(where.device)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    return {"seconds": seconds, "parameters": parameters}


def _stepper(model, batch, config, where):
    """A function that takes one step of the training loop on the batch, images and episodes aside."""
    from fewshot.learning.loop import solve

    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9, nesterov=True, fused=True)

    def step() -> None:
        model.backbone.begin_step(0.5)
        loss, _ = solve(model, batch, config, where)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step
