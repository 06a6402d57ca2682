"""Images that are nearly another one: the same picture, saved anew or at another size, in another split.

Found by a difference hash (as N. Krawetz describes it in "Kind of like that", 2013): an image becomes 8 x 9 cells of
brightness, and each of 64 bits says whether a cell is brighter than its left neighbour. Images of different splits are
candidates where their hashes agree in all bits of one quarter, and differ in RADIUS bits at most. A candidate is a
near-copy where the pixels say so, too: where the two differ by little, beside what the images themselves vary.

In mini-ImageNet it finds three pairs, which are copies, and nothing else. Of 1,500 of its images it finds 99 % saved as
JPEG of quality 60, and 96 % made smaller (48 of 84 px) and larger again. Not found: a copy that was cropped, mirrored,
turned or recoloured, one of a picture with hardly anything in it, and one within a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

RADIUS = 8
DIFFERENT = 0.1  # variance of the difference, as a share of the images' own: of unrelated images it is about 1
_MOST = 32  # images of a split that share a quarter of the hash: where more do, there is nothing in it
_ROWS = 5  # of pixels, from each row of cells: enough, and faster than all
_SAMPLE = 21  # pixels a side that are compared, at most
_AT_ONCE = 2048  # images: at most so many times _MOST candidates in memory
_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)

Pair = tuple[tuple[str, int], tuple[str, int]]
"""(split, position) of two images."""


def hashes(images: np.ndarray) -> np.ndarray:
    """(N,) uint64: the difference hash of each of `images`, (N, S, S, 3) uint8, S at least 3."""
    count, side = images.shape[:2]
    rows = np.linspace(0, side, 8 * _ROWS, endpoint=False).astype(int)
    lines = images.reshape(count, side, 3 * side)[:, rows].reshape(count, 8, _ROWS, 3 * side)
    columns = np.linspace(0, 3 * side, 9, endpoint=False).astype(int)
    cells = np.add.reduceat(lines.sum(axis=2, dtype=np.uint16), columns, axis=2, dtype=np.uint32)
    cells //= np.diff(columns, append=3 * side).astype(np.uint32)
    return np.packbits(cells[:, :, 1:] > cells[:, :, :-1], axis=2)[:, :, 0].copy().view(np.uint64)[:, 0]


def near_copies(found: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> list[Pair]:
    """Near-copies across splits, in order. `found`: the hashes of `images`, both by split. Equal images are none."""
    pairs: list[Pair] = []
    for one, other in combinations(found, 2):
        for start in range(0, len(found[one]), _AT_ONCE):
            i, j = _candidates(found[one][start : start + _AT_ONCE], found[other])
            near = _differences(_sample(images[one], i + start), _sample(images[other], j)) < DIFFERENT
            pairs += [((one, int(a) + start), (other, int(b))) for a, b in zip(i[near], j[near], strict=True)]
    return [(a, b) for a, b in pairs if not np.array_equal(images[a[0]][a[1]], images[b[0]][b[1]])]


def _candidates(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in either array of hashes."""
    close = []
    for quarter in range(4):
        left, right = ones.view(np.uint16)[quarter::4], others.view(np.uint16)[quarter::4]
        order = np.argsort(right, kind="stable")
        first, last = (np.searchsorted(right[order], left, side) for side in ("left", "right"))
        shared = np.where(last - first > _MOST, 0, last - first)
        i = np.repeat(np.arange(len(left)), shared)
        j = order[np.arange(len(i)) - np.repeat(np.cumsum(shared) - shared, shared) + np.repeat(first, shared)]
        bits = _BITS[(ones[i] ^ others[j]).view(np.uint16)].reshape(-1, 4).sum(axis=1)
        close.append((i * len(others) + j)[bits <= RADIUS])
    i, j = np.divmod(np.unique(np.concatenate(close)), len(others))
    return i, j


def _sample(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(K, pixels, 3) float32 of some images: pixels of a regular grid."""
    step = -(-images.shape[1] // _SAMPLE)
    side = len(range(0, images.shape[1], step))
    return images[positions, ::step, ::step].reshape(len(positions), side * side, 3).astype(np.float32)


def _differences(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) float32: how far samples are from those of the same place, as DIFFERENT; 1 where both are flat."""
    own = (ones.var(axis=1) + others.var(axis=1)).mean(axis=1)  # of each channel: that colours differ is no picture
    return np.where(own > 0, np.square(ones - others).mean(axis=(1, 2)) / np.maximum(own, 1e-6), 1)
