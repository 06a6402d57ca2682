"""What each regularizer adds to a step: all of them take turns within one process, step by step."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from common import case, wait_for

from fewshot import regularizers
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.process import huge_pages


@case
def cost(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Seconds of each of `steps` rounds, and the parameters, by regularizer: `none` and all that the backbone takes.

    A step is the loop's on one batch that is already there: guide, forward, head, backward, optimizer. The learning
    rate is 0, because on one batch the weights would drift off.
    """
    from fewshot import experiment
    from fewshot.core import compute

    huge_pages()
    if torch.device(config.device).type == "cpu":
        compute.keep_heap()
    names = sorted(regularizers.FAMILY.names(), key=lambda name: name != "none")
    steppers, parameters, batch, device = {}, {}, None, None
    for name in names:
        try:
            setup = experiment.prepare(dataclasses.replace(config, reg=name))
        except UserError:  # it declines the backbone
            continue
        if batch is None:
            batch, device = setup.regime.batch(0), setup.compute.device
        model = setup.model.to(device).train()
        steppers[name], parameters[name] = _stepper(model, setup.regime, batch), model.parameter_count
    seconds = {name: [] for name in steppers}
    for number in range(1 + steps):
        for name, step in steppers.items():
            wait_for(device)
            begin = time.perf_counter()
            step()
            wait_for(device)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    return {"seconds": seconds, "parameters": parameters}


def _stepper(model, regime, batch):
    """A function that takes one step of the training loop on the batch, without drawing or augmenting it."""
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9, nesterov=True, fused=True)

    def step() -> None:
        model.backbone.begin_step(0.5)
        loss, _ = regime.loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step
