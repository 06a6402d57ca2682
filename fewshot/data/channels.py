"""Mean and standard deviation of each channel, from exact integer sums: the same in whatever pieces images come."""

from __future__ import annotations

import numpy as np

Triple = tuple[float, float, float]
"""A number for each channel."""

_LEAST_STD = 1 / 255  # one gray level: a channel that never changes must not divide by 0
_PIECE = 256  # images summed at once: 256 * 255**2 fits into 32 bits


class Channels:
    """Sums over images that are added piece by piece."""

    def __init__(self) -> None:
        self._sum, self._squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
        self._pixels = 0

    def add(self, images: np.ndarray) -> None:
        """images (N, H, W, 3) uint8."""
        for start in range(0, len(images), _PIECE):
            piece = images[start : start + _PIECE]
            # Over the images first: rows of H * W * 3 numbers are added at once, and only one is left to be split.
            self._sum += piece.sum(0, dtype=np.uint32).sum((0, 1), dtype=np.int64)
            self._squares += np.square(piece, dtype=np.uint16).sum(0, dtype=np.uint32).sum((0, 1), dtype=np.int64)
            self._pixels += piece.shape[0] * piece.shape[1] * piece.shape[2]

    def statistics(self) -> tuple[Triple, Triple]:
        """(mean, std) in [0, 1], rounded to 6 digits. std is over all pixels (divisor N), and at least 1/255."""
        mean = self._sum / (255 * self._pixels)
        # In Python's integers, which do not overflow: N * sum of squares - square of the sum.
        spread = [self._pixels * int(q) - int(s) ** 2 for s, q in zip(self._sum, self._squares, strict=True)]
        std = np.sqrt([each / (255 * self._pixels) ** 2 for each in spread]).clip(_LEAST_STD)
        return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())
