"""The optimizer, and what goes with its step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_SCHEDULED = {"lr", "weight_decay"}  # of a group: set again before each step


def build(
    name: str, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """ "sgd": Nesterov's momentum if `momentum` is not 0; "adamw": decoupled weight decay, torch's betas."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=weight_decay, fused=True)
    assert name == "sgd"
    sgd = torch.optim.SGD(
        parameters, lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay, fused=True
    )
    if momentum:  # torch's fused step fails if a weight has its first gradient later than others
        for weight in itertools.chain.from_iterable(group["params"] for group in sgd.param_groups):
            if weight.requires_grad:
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return sgd


class MovingAverage(AveragedModel):
    """A copy whose weights and statistics follow the model's: decay * its own + (1 - decay) * the model's.

    torch's own update gives the same bits, but copies its count to the device in every step and waits for the copy.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        pairs = list(zip(_moved(self.module), _moved(model), strict=True))
        moving = [(mine, its) for mine, its in pairs if mine.is_floating_point()]
        if self.n_averaged == 0:  # this count is in the CPU's memory
            for mine, its in pairs:
                mine.copy_(its)
        else:
            torch._foreach_lerp_([mine for mine, _ in moving], [its for _, its in moving], 1 - self.decay)
            for mine, its in pairs:
                if not mine.is_floating_point():
                    mine.copy_(mine * self.decay + its * (1 - self.decay))
        self.n_averaged += 1


def _moved(model: nn.Module) -> Iterator[Tensor]:
    """All that an average follows: parameters, and buffers, including those that are not saved."""
    return itertools.chain(model.parameters(), model.buffers())


def check_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """ValueError if a state is not of such an optimizer of these weights: torch accepts it, and fails at the step."""
    ours, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    for group, kept in zip(ours, theirs, strict=True):
        for name in (group.keys() & kept.keys()) - _SCHEDULED:  # another torch may have more settings, or fewer
            if group[name] != kept[name]:
                raise ValueError(f"its optimizer has another {name}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, kept in state["state"].items():
        for name, value in kept.items():
            fits = isinstance(value, Tensor) and value.is_floating_point()
            if not fits or value.shape not in (weights[number].shape, torch.Size([])):
                raise ValueError(f"its optimizer's {name} is not of these weights")
