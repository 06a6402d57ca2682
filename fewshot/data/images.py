"""A split's images as one tensor near the processor, and their normalisation."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.core.compute import near
from fewshot.data.dataset import Split
from fewshot.data.image_files import ImageFiles

_SHARE_OF_FREE_MEMORY = 0.5  # of the GPU's: what a data set may take


def as_tensor(images: np.ndarray | Tensor | ImageFiles) -> Tensor:
    """Images as a tensor that shares their memory, for reading only: a store's arrays must not be written to."""
    if isinstance(images, Tensor):
        return images
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(np.asarray(images))


def _room(device: torch.device) -> float:
    """Bytes of a GPU's memory that a split may take."""
    return _SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]


class ImageSource:
    """Gives batches of a split's uint8 images on a device.

    With `keep`, for images that are needed many times, the split is copied to a GPU if it has room. Otherwise, and on
    the CPU, it stays memory-mapped. Images that are in files are decoded.
    """

    def __init__(self, split: Split, device: torch.device, keep: bool = True) -> None:
        self.device = device
        self.files = split.images if isinstance(split.images, ImageFiles) else None
        self.resident = device.type == "cpu"
        if isinstance(split.images, ImageFiles):
            return
        self.images = as_tensor(split.images)
        if keep and device.type == "cuda" and split.images.nbytes < _room(device):
            self.images, self.resident = self.images.to(device), True

    def fetch(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """(images, positions): image index[i] is images[positions[i]]; both on the device.

        images (N, S, S, 3) uint8, positions (B,) int64 for index (B,).
        """
        if self.files is not None:
            return self.near(self.files[index]), torch.arange(len(index), device=self.device)
        rows = torch.from_numpy(index)
        if self.device.type == "cpu":
            return self.images, rows
        if self.resident:
            return self.images, rows.pin_memory().to(self.device, non_blocking=True)
        gathered = self.images[rows].pin_memory().to(self.device, non_blocking=True)
        return gathered, torch.arange(len(index), device=self.device)

    def span(self, start: int, stop: int) -> Tensor:
        """(stop - start, S, S, 3) uint8 on the device: consecutive images, which need not be gathered."""
        if self.files is not None:
            return self.near(self.files[start:stop])
        part = self.images[start:stop]
        return part if self.resident else part.pin_memory().to(self.device, non_blocking=True)

    def near(self, values: np.ndarray) -> Tensor:
        """Decoded images (B, S, S, 3), or other values of a batch, on the device, without waiting for it."""
        return near(values, self.device)


class Normalise(nn.Module):
    """(x - mean) / std per channel: x (B, 3, S, S) in [0, 1]. In one pass over memory, as x / std - mean / std."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / stds, persistent=False)
        self.register_buffer("shift", -means / stds, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)
