"""Batch norm over the images of several processes."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewshot.core.errors import UserError

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def sync_batch_norm(model: nn.Module, group: Any) -> None:
    """Let batch norms in training use the statistics of all processes' images, over a group of CUDA devices.

    Raises UserError if one does more than torch's own, or has a hook, such as a regularizer's: torch puts another
    module in its place.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (type(module) not in _PLAIN or module._forward_hooks):
            what = "carries a regularizer" if type(module) in _PLAIN else f"is a {type(module).__name__}"
            raise UserError(f"--sync-bn: {name} {what}, and cannot be replaced; leave --sync-bn out")
    nn.SyncBatchNorm.convert_sync_batchnorm(model, group)
