"""A split's images as one tensor near the processor, and their normalisation."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.data.store import Split

# Mean and standard deviation of mini-ImageNet's training split as the field has them (MetaOptNet).
MINI_IMAGENET_MEAN = tuple(value / 255 for value in (120.396, 115.594, 104.540))
MINI_IMAGENET_STD = tuple(value / 255 for value in (70.682, 68.276, 72.545))

_LEAST_STD = 1 / 255  # one gray level: a channel that never changes must not divide by 0
_SHARE_OF_FREE_MEMORY = 0.5  # of the GPU's, which a data set may take


class ImageSource:
    """Gives batches of a split's uint8 images on a device.

    On a GPU the split lives there where it fits; else, and on the CPU, it stays memory-mapped.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self.device = device
        self.resident = device.type == "cpu"
        with warnings.catch_warnings():  # the array is read-only; nothing here writes to it
            warnings.simplefilter("ignore", UserWarning)
            self.images = torch.from_numpy(split.images)
        if device.type == "cuda" and split.images.nbytes < _SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
            self.images, self.resident = self.images.to(device), True

    def fetch(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """(images, positions): image index[i] is images[positions[i]]; both on the device.

        images (N, S, S, 3) uint8, positions (B,) int64 for index (B,).
        """
        index = torch.from_numpy(index)
        if self.device.type == "cpu":
            return self.images, index
        if self.resident:
            return self.images, index.pin_memory().to(self.device, non_blocking=True)
        gathered = self.images[index].pin_memory().to(self.device, non_blocking=True)
        return gathered, torch.arange(len(index), device=self.device)


class Normalise(nn.Module):
    """(x - mean) / std per channel: x (B, 3, S, S) in [0, 1]. In one pass over memory, as x / std - mean / std."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def channel_statistics(dataset: str, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1]: the field's, or those of the training split."""
    if dataset == "mini-imagenet":
        return MINI_IMAGENET_MEAN, MINI_IMAGENET_STD
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(train.images), 1024):
        pixels = train.images[start : start + 1024].reshape(-1, 3) / 255.0
        total += pixels.sum(0)
        squares += (pixels**2).sum(0)
    count = train.images.size / 3
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, _LEAST_STD**2))
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())
