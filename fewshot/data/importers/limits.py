"""How much a foreign file may ask for: far more than an honest one does, and less than a machine has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fewshot.core.errors import UserError

_MB, _GB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds on declared and on actual sizes. `--limits N` multiplies all but `nesting`."""

    pixels: int = 90_000_000
    """Of an image. Pillow warns from about this number on."""

    file: int = 256 * _MB
    """Bytes of an image's file or of a list."""

    unpacked: int = _GB
    """Bytes that the files in an archive, and in the archives in it, may have together, plus..."""

    ratio: int = 100
    """... this many times the archive's own size. Images hardly shrink; an archive of zeros shrinks 1000 times."""

    steps: int = 2_000_000
    """Of a pickle, which is a program. mini-ImageNet's take 40,000."""

    nesting: int = 8
    """Archives in archives; a .tar.gz is two."""

    def times(self, factor: int) -> Limits:
        names = ("pixels", "file", "unpacked", "ratio", "steps")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


def above(amount: str, limit: str, factor: float | None = None) -> str:
    """What to say about something that is too large; `factor`: how many times too large, if that is known."""
    remedy = f"--limits {math.ceil(factor)} allows it" if factor else "--limits N allows N times as much"
    return f"{amount}, above the limit of {limit}; if you trust it, {remedy}"


def in_bytes(size: float) -> str:
    """12 MB, 3.4 GB, 800 bytes"""
    if size >= _GB:
        return f"{size / _GB:,.1f} GB"
    return f"{size / _MB:,.0f} MB" if size >= _MB else f"{size:,.0f} bytes"


class Budget:
    """Bytes that may still come out of one foreign file, through any number of archives in archives."""

    def __init__(self, origin: str, size: int, limits: Limits) -> None:
        self._origin = origin
        self._limit = limits.unpacked + limits.ratio * size
        self._used = 0

    def charge(self, size: int) -> None:
        """Take `size` bytes of it. Raises UserError if it has fewer left."""
        self._used += size
        if self._used > self._limit:
            amount = f"{self._origin} unpacks to {in_bytes(self._used)} at least"
            raise UserError(above(amount, in_bytes(self._limit)))  # how much there is in all is not known yet
