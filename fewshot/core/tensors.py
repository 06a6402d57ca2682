"""Named tensors as bytes."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor


def serialised(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as safetensors.

    Each tensor is copied, contiguous: safetensors takes none in another's memory, as those of a layer with two names.
    """
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    return safetensors.torch.save(copies)
