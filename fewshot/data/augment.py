"""Gather, crop, flip and jitter a whole batch at once, on the device that holds the images.

Shapes: N images in the source, B in the batch, S x S pixels. Each image comes out as torchvision's
functional transforms make it from the same parameters (tests compare them), without a Python loop
over images.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, torchvision's rgb_to_grayscale
_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)


@dataclass(frozen=True)
class Parameters:
    """What is drawn for each of B images."""

    top: Tensor
    """(B,) int64: upper edge of the crop in the padded image, 0 .. 2 * padding."""
    left: Tensor
    """(B,) int64: left edge, likewise."""
    flip: Tensor
    """(B,) bool: whether it is mirrored."""
    factors: Tensor
    """(B, 3) float32: brightness, contrast and saturation; 1 changes nothing."""
    order: Tensor
    """(B, 3) int64: which of the three is applied first, second, third."""

    def __getitem__(self, images: slice) -> Parameters:
        """What is drawn for some of the images."""
        return Parameters(*(t[images] for t in vars(self).values()))

    def to(self, device: torch.device) -> Parameters:
        """All of it on `device`, without waiting for it."""
        if device.type == "cpu":
            return self
        return Parameters(*(t.pin_memory().to(device, non_blocking=True) for t in vars(self).values()))


@dataclass(frozen=True)
class Augmentation:
    """The usual one in few-shot learning: a crop of the zero-padded image, colour jitter in random order, mirroring.

    `padding` is in pixels. `jitter` is the half-width of the range around 1 from which the three factors are drawn.
    """

    padding: int = 8
    jitter: float = 0.4
    mirror: bool = True

    def draw(self, batch: int, generator: torch.Generator) -> Parameters:
        """Parameters for `batch` images from a CPU generator, so the same on every device."""
        edges = torch.randint(0, 2 * self.padding + 1, (2, batch), generator=generator)
        flip = torch.rand(batch, generator=generator) < (0.5 if self.mirror else 0.0)
        factors = 1 + self.jitter * (2 * torch.rand(batch, 3, generator=generator) - 1)
        order = torch.rand(batch, 3, generator=generator).argsort(1)
        return Parameters(edges[0], edges[1], flip, factors, order)

    def __call__(self, images: Tensor, index: Tensor, drawn: Parameters) -> Tensor:
        """images (N, S, S, 3) uint8, index (B,) -> (B, 3, S, S) float32 in [0, 1], channels-last."""
        batch = _crop(images, index, drawn, self.padding).float().div_(255)
        if self.jitter:
            batch = _jitter(batch, drawn.factors, drawn.order)
        return batch.permute(0, 3, 1, 2)


def _crop(images: Tensor, index: Tensor, drawn: Parameters, padding: int) -> Tensor:
    """The mirrored crops (B, S, S, 3) uint8 in one gather; what lies in the padding is 0."""
    size = images.shape[1]
    steps = torch.arange(size, device=images.device)
    rows = drawn.top[:, None] - padding + steps
    columns = drawn.left[:, None] - padding + torch.where(drawn.flip[:, None], size - 1 - steps, steps)
    pixels = (index[:, None, None] * size + rows.clamp(0, size - 1)[:, :, None]) * size
    pixels = pixels + columns.clamp(0, size - 1)[:, None, :]
    crops = images.view(-1, 3).index_select(0, pixels.flatten()).view(len(index), size, size, 3)
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    return crops.mul_(inside[..., None])


def _jitter(batch: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """ColorJitter on (B, S, S, 3) in [0, 1]: three blends, each image in its own order.

    Each of the three is a blend f * x + (1 - f) * other, clamped to [0, 1]; `other` is black for
    brightness, the mean luma for contrast, each pixel's luma for saturation.
    """
    gray_weights = _gray_weights(batch.device)
    for stage in range(3):
        kind = order[:, stage]
        factor = factors.gather(1, kind[:, None]).view(-1, 1, 1, 1)
        luma = (batch @ gray_weights)[..., None]  # (B, S, S, 1)
        is_contrast, is_saturation = ((kind == k).float().view(-1, 1, 1, 1) for k in (_CONTRAST, _SATURATION))
        other = is_contrast * luma.mean((1, 2), keepdim=True) + is_saturation * luma
        batch = torch.addcmul((1 - factor) * other, batch, factor).clamp_(0, 1)
    return batch


@functools.cache
def _gray_weights(device: torch.device) -> Tensor:
    """Once per device: every step would wait for its copy to a GPU."""
    return torch.tensor(GRAY, device=device)


def to_unit(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in [0, 1], channels-last: evaluation's path."""
    return images.float().div_(255).permute(0, 3, 1, 2)
