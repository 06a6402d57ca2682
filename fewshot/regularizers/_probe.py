"""Is a `multiplier` a mask, or the regularized map? The second would be multiplied with the map once more, silently."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Guide, Regularizer

LARGER = 1024.0
GROWTH = 32.0  # a map grows as its input does, a mask of weights or zeros not at all


def grows(mask: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the multiplier of LARGER * x is, on average, more than GROWTH times as large as that of x."""
    return bool(mask(LARGER * x).abs().mean() > GROWTH * mask(x).abs().mean() > 0)


def check_mask(method: Regularizer, name: str) -> None:
    """UserError where the multiplier of a freshly built method is no mask for the maps of its site.

    It draws from torch's generator and may change the method: call it on one that is thrown away.
    """
    if not (method.has_mask() and method.active):
        return
    site = method.site
    x = torch.randn(2, site.channels, site.height, site.width)
    named = torch.arange(2) if method.guided_by_name else None
    guide = Guide(torch.randn(2, site.channels), torch.arange(2), named)

    def mask(given: Tensor) -> Tensor:
        torch.default_generator.manual_seed(0)  # the CPU's alone
        found = method.mask(given, guide)
        try:
            return found.expand(given.shape)
        except RuntimeError:
            shapes = f"{tuple(found.shape)} for maps {tuple(given.shape)}"
            raise UserError(f"{name}: its `multiplier` does not fit its maps: {shapes}") from None

    if grows(mask, x):
        raise UserError(
            f"{name}: its `multiplier` grows as its input does, so it is a map and not a mask: return the mask alone,"
            " `forward` multiplies; a method that is no multiplier overrides `forward` instead"
        )
