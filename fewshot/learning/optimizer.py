"""The optimizer, and what goes with its step; all of it torch's own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def build(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """ "sgd": Nesterov's momentum where `momentum` is not 0; "adamw": decoupled weight decay, torch's betas."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay, fused=True)
    assert name == "sgd"
    return torch.optim.SGD(
        parameters, lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay, fused=True
    )


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy whose weights and statistics follow the model's: decay * its own + (1 - decay) * the model's."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
