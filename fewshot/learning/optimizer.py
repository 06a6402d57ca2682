"""The optimizer, and what goes with its step; all of it torch's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_SCHEDULED = {"lr", "weight_decay"}  # of a group: set anew before each step


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


def check_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """ValueError where a state is not of such an optimizer of these weights: torch takes it, and fails at the step."""
    ours, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    for group, kept in zip(ours, theirs, strict=True):
        for name in (group.keys() & kept.keys()) - _SCHEDULED:  # another torch may have settings more, or fewer
            if group[name] != kept[name]:
                raise ValueError(f"its optimizer has another {name}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, kept in state["state"].items():
        for name, value in kept.items():
            fits = isinstance(value, Tensor) and value.is_floating_point()
            if not fits or value.shape not in (weights[number].shape, torch.Size([])):
                raise ValueError(f"its optimizer's {name} is not of these weights")
