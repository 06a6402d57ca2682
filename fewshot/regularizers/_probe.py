"""Is a user's method what it says? It is tried on random maps before training: in training, its mistakes would be
silent, or appear as errors from torch.

Shapes: N images, C channels, H x W positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Guide, Regularizer

LARGER = 1024.0
GROWTH = 32.0  # a map grows with its input, a mask of weights or zeros does not
TRIES = 20  # training steps; a method may sit some of them out


def is_users(method: Regularizer) -> bool:
    """Whether a method's class is a user's own. Tests hold ours to all laws."""
    return not type(method).__module__.startswith("fewshot.")


def grows(mask: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the multiplier of LARGER * x is more than GROWTH times as large as that of x.

    Both its mean and its maximum must be: the mean alone may grow because more of the map exceeds a threshold, the
    maximum alone because weights gather at a position.
    """
    usual, larger = mask(x).abs(), mask(LARGER * x).abs()
    return all(bool(size(larger) > GROWTH * size(usual) > 0) for size in (Tensor.mean, Tensor.max))


def check_method(method: Regularizer, name: str) -> None:
    """Raises UserError if a freshly built method does not do what `Regularizer` says, on maps of its site.

    The method must have called its base's `__init__`, change nothing in evaluation mode, and return maps in training.
    What it multiplies by must be a mask: a finite float tensor that fits the maps and does not grow with them. This
    check draws from torch's generator and may change the method: call it on one that is thrown away.
    """
    if "_modules" not in vars(method) or not hasattr(method, "site"):
        raise UserError(f"{name}: its `__init__` does not call `super().__init__(site)`: let that be its first line")
    if not method.active:
        return
    x, guide = _like(method)
    method.eval()
    found = method(x.clone(), guide)  # a clone: the method may change it in place
    if not (isinstance(found, Tensor) and found.shape == x.shape and found.equal(x)):
        raise UserError(
            f"{name}: its `forward` changes its input in evaluation mode, too: let it return x itself unless"
            " self.training and self.active"
        )
    method.train()
    method.begin_step(1.0, torch.Generator().manual_seed(0))
    if method.has_mask():
        _check_mask(method, name, x, guide)
    found = method(x.clone().requires_grad_() * 1, guide)  # as in a network, a gradient flows through it
    if not isinstance(found, Tensor) or found.shape != x.shape:
        raise UserError(f"{name}: its `forward` returns {_said(found)} for maps {tuple(x.shape)}")


def _said(found: object) -> str:
    if found is None:
        return "None (a `return` is missing)"
    return str(tuple(found.shape)) if isinstance(found, Tensor) else f"{type(found).__name__}, not a tensor"


def _check_mask(method: Regularizer, name: str, x: Tensor, guide: Guide) -> None:
    def mask(given: Tensor) -> Tensor:
        torch.default_generator.manual_seed(0)  # the CPU's alone
        found = method.mask(given, guide)
        if not isinstance(found, Tensor):
            raise UserError(f"{name}: its `multiplier` returns {_said(found)}")
        if not found.is_floating_point():
            raise UserError(f"{name}: its `multiplier` is of {found.dtype}: let it return floats, by .float()")
        try:
            return found.expand(given.shape)
        except RuntimeError:
            shapes = f"{tuple(found.shape)} for maps {tuple(given.shape)}"
            raise UserError(f"{name}: its `multiplier` does not fit its maps: {shapes}") from None

    dead = x.relu()
    dead[:, 0] = 0  # like a channel whose weights have died
    for given, where in ((x, "random maps"), (dead, "maps of which one is all zero (does it divide by 0?)")):
        if not mask(given).isfinite().all():
            raise UserError(f"{name}: its `multiplier` is not finite on {where}; training would end in NaN")
    if grows(mask, x):
        raise UserError(
            f"{name}: its `multiplier` grows as its input does, so it is a map and not a mask: return the mask alone,"
            " `forward` multiplies; a method that is no multiplier overrides `forward` instead"
        )


def idle(method: Regularizer) -> bool:
    """Whether a method changes neither a random map in a forward pass nor the weight decay, in TRIES training steps.

    It tries a copy, and leaves the state of torch's random numbers unchanged.
    """
    tried = copy.deepcopy(method).cpu().train()
    with torch.random.fork_rng(devices=[]):
        for step in range(TRIES):
            torch.default_generator.manual_seed(step)
            tried.begin_step(step / TRIES, torch.Generator().manual_seed(step))
            x, guide = _like(tried)
            found = tried(x.clone().requires_grad_() * 1, guide)
            if not torch.equal(found, x) or tried.weight_decay_scale != 1:
                return False
    return True


def _like(method: Regularizer) -> tuple[Tensor, Guide]:
    """Random maps for a method's site, and a random guide."""
    site = method.site
    drawn = torch.rand if site.place == "image" else torch.randn
    x = drawn(2, site.channels, site.height, site.width)
    named = torch.arange(2) if method.guided_by_name else None
    return x, Guide(torch.randn(2, site.channels), torch.arange(2), named)
