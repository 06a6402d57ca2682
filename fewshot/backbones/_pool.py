"""2x2 max pooling, the pass over memory that is left in evaluation besides the convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_IN_CACHE = 32 * 2**20  # bytes of a map: a larger one does not stay in the cache between two passes


def halve(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H // 2, W // 2), each the maximum of 2x2 positions: F.max_pool2d(x, 2).

    On the CPU, F.max_pool2d also notes which position was the largest, for a gradient. If no gradient is wanted, two
    passes of `maximum` give the same numbers in two thirds of the time.
    """
    height, width = (side // 2 * 2 for side in x.shape[2:])
    small = x.device.type == "cpu" and x.numel() * x.element_size() <= _IN_CACHE and min(height, width) > 0
    if torch.is_grad_enabled() or not small:
        return F.max_pool2d(x, 2)
    x = torch.maximum(x[..., 0:width:2], x[..., 1:width:2])
    return torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
