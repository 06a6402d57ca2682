"""Near-copies of images: the same picture, saved again or at another size, in another split.

They are found by a difference hash (N. Krawetz, "Kind of like that", 2013): an image becomes 8 x 9 cells of brightness,
and each of 64 bits says whether a cell is brighter than its left neighbour. Images of different splits are candidates
if their hashes agree in all bits of one quarter and differ in RADIUS bits at most. A candidate is a near-copy if the
pixels confirm it: if the two differ by little, compared with how much the images themselves vary.

In mini-ImageNet, this finds three pairs, which are copies, and nothing else. Of 1,500 of its training images, it finds
98 % when they are saved as JPEG of quality 60, and 84 % when they are made smaller (48 of 84 px) and larger again
(scripts/near_copies.py). It does not find copies that are mirrored, turned or recoloured, most cropped copies, copies
of a picture with hardly anything in it, or copies within a split. Nothing can be said about images that are all alike:
in Fashion-MNIST, with clothes cut out and centred, 43,490 pairs of different ones look nearly equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

RADIUS = 8
DIFFERENT = 0.1  # variance of the difference, as a share of the images' own: of unrelated images it is about 1
_ALIKE = 0.05  # of all images: if more candidates look nearly equal, these images are alike, not copies
_FEW = 100  # this many are named in any case
_MOST = 32  # images of a split that share a quarter of the hash: if more do, that quarter says nothing
_ROWS = 3  # of pixels, from each row of cells: nearly as good as all, and much faster
_CACHED = 64  # images: what is made of them stays in the processor's cache
_AT_ONCE = 4096  # images: at most this many times _MOST candidates are in memory
_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)

Pair = tuple[tuple[str, int], tuple[str, int]]
"""(split, position) of two images."""


def cells(images: np.ndarray) -> np.ndarray:
    """(N, 8, 9) uint8: mean brightness of the cells of `images`, (N, S, S, 3) uint8, S at least 3."""
    count, side = images.shape[:2]
    lines = images.reshape(count, side, 3 * side)
    rows = np.linspace(0, side, 8 * _ROWS, endpoint=False).astype(int)
    columns = np.linspace(0, 3 * side, 9, endpoint=False).astype(int)
    sizes = (_ROWS * np.diff(columns, append=3 * side)).astype(np.uint32)
    result = np.empty((count, 8, 9), np.uint8)
    for start in range(0, count, _CACHED):
        part = lines[start : start + _CACHED]
        bands = part[:, rows[::_ROWS]].astype(np.uint16)
        for row in range(1, _ROWS):
            bands += part[:, rows[row::_ROWS]]
        result[start : start + _CACHED] = np.add.reduceat(bands, columns, axis=2, dtype=np.uint32) // sizes
    return result


def near_copies(found: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> list[Pair] | None:
    """Near-copies across splits, in order; equal images do not count. `found`: the cells of `images`, both by split.

    Returns None if the images are so alike that copies cannot be told from others.
    """
    pairs: set[Pair] = set()
    many = max(_FEW, _ALIKE * sum(map(len, found.values())))
    hashes = {split: _hashes(each) for split, each in found.items()}
    for one, other in combinations(found, 2):
        for i, j in _candidates(hashes[one], hashes[other]):
            alike = _differences(_flat(found[one][i]), _flat(found[other][j])) < DIFFERENT  # of cells: few are left
            pairs |= {((one, int(a)), (other, int(b))) for a, b in zip(i[alike], j[alike], strict=True)}
            if len(pairs) > many:
                return None
    order = list(found)
    return [
        (a, b)
        for a, b in sorted(pairs, key=lambda pair: [(order.index(split), position) for split, position in pair])
        if _is_near(images[a[0]][a[1]], images[b[0]][b[1]])
    ]


def _is_near(one: np.ndarray, other: np.ndarray) -> bool:
    (apart,) = _differences(one.reshape(1, -1, 3).astype(np.float32), other.reshape(1, -1, 3).astype(np.float32))
    return bool(0 < apart < DIFFERENT)


def _candidates(ones: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions in the two arrays of hashes, a part at a time; a pair may come up to four times."""
    for quarter in range(4):
        right = others.view(np.uint16)[quarter::4]
        order, sizes = np.argsort(right, kind="stable"), np.bincount(right, minlength=1 << 16)
        first = np.cumsum(sizes) - sizes  # in `order`, of those that have this quarter
        sizes[sizes > _MOST] = 0
        for start in range(0, len(ones), _AT_ONCE):
            hashes = ones[start : start + _AT_ONCE]
            left = hashes.view(np.uint16)[quarter::4]
            shared = sizes[left]
            i = np.repeat(np.arange(len(left)), shared)
            j = order[np.arange(len(i)) + np.repeat(first[left] - np.cumsum(shared) + shared, shared)]
            apart = _BITS[(hashes[i] ^ others[j]).view(np.uint16)].reshape(-1, 4).sum(axis=1)
            yield i[apart <= RADIUS] + start, j[apart <= RADIUS]


def _hashes(of: np.ndarray) -> np.ndarray:
    """(N,) uint64."""
    return np.packbits(of[:, :, 1:] > of[:, :, :-1], axis=2)[:, :, 0].copy().view(np.uint64)[:, 0]


def _flat(of: np.ndarray) -> np.ndarray:
    """(K, 72, 1) float32: cells as an image of one channel."""
    return of.reshape(len(of), 72, 1).astype(np.float32)


def _differences(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(K,) float32: how far apart images (K, pixels, channels) are, on DIFFERENT's scale; 1 if both are flat."""
    own = (ones.var(axis=1) + others.var(axis=1)).mean(axis=1)  # per channel: that channels differ is no picture
    return np.where(own > 0, np.square(ones - others).mean(axis=(1, 2)) / np.maximum(own, 1e-6), 1)
