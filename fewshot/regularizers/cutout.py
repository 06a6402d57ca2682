"""Cutout (DeVries & Taylor, arXiv:1708.04552, 2017): one square of each input image is hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Regularizer, Site


def cutout_mask(rows: Tensor, columns: Tensor, size: int, height: int, width: int) -> Tensor:
    """Multiplier (N, 1, H, W): 0 in the square of `size` around (rows, columns), each (N,), clipped; else 1.

    A square of odd size has its centre in the middle; one of even size begins size / 2 before its centre (rows
    r - size // 2 .. r - size // 2 + size - 1; columns likewise).
    """

    def within(centres: Tensor, length: int) -> Tensor:  # (N, length)
        offset = torch.arange(length, device=centres.device) - (centres[:, None] - size // 2)
        return (offset >= 0) & (offset < size)

    hidden = within(rows, height)[:, :, None] & within(columns, width)[:, None, :]
    return (~hidden).float()[:, None]


def expected_drop(size: int, height: int, width: int) -> float:
    """Exact mean, over all centres, of the share of the image within the clipped square."""

    def share(length: int) -> float:
        starts = [centre - size // 2 for centre in range(length)]
        return sum(min(start + size, length) - max(start, 0) for start in starts) / length**2

    return share(height) * share(width)


class Cutout(Regularizer):
    """Hides a square of `size` x `size` pixels per image; its centre is uniform over all pixels, so borders clip it.

    Sec. 3.2 of the paper: a fixed-size zero-mask at a random location, on images normalised to mean 0, so
    that hidden pixels take the mean of the data; nothing is rescaled. It acts on the input (site 0), support
    and query alike, in training only.

    Our readings: the paper tunes the size to the data set (16 pixels of 32 for CIFAR-10, 8 for CIFAR-100,
    sec. 4.1) and has none for few-shot learning; our default is a fifth of the image's side, rounded (17 of 84, 6 of
    32); every image gets a square (the paper's alternative, half of the images and no clipping, is not
    implemented); an odd size is hidden whole, while the authors' code hides size - 1.

    Expected drop fraction: `expected_drop`, .0369 for 17 of 84 and .0319 for 6 of 32 (unclipped squares would
    be .0410 and .0352).
    """

    place = "input"

    def __init__(self, site: Site, *, size: int | None = None) -> None:
        super().__init__(site)
        side = min(site.height, site.width)
        self.size = max(1, round(side / 5)) if size is None else size
        if not 0 <= self.size <= side:
            raise UserError(f"cutout:size={size} is not within 0..{side}, the side of the images")
        self.active = self.size > 0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, 1, H, W) multiplier: 0 or 1."""
        images, _, height, width = x.shape
        rows = torch.randint(height, (images,), device=x.device)
        columns = torch.randint(width, (images,), device=x.device)
        return cutout_mask(rows, columns, self.size, height, width)

    def extra_repr(self) -> str:
        return f"size={self.size}"
