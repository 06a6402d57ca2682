"""Learning rates by step."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The rate of each optimizer step, counted from 0.

    `kind`: "cosine", half a wave from `lr` to 0 over all `steps` (Loshchilov & Hutter, ICLR 2017, eq. 5, without
    restarts); "steps", `lr`, then `values[i]` from step `changes[i]` on; "constant", `lr`. In the first `warmup` steps
    the rate is multiplied by 1/warmup, 2/warmup, ..., 1 (Goyal et al., arXiv:1706.02677, sec. 2.2).
    """

    kind: str
    lr: float
    steps: int
    changes: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    warmup: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of optimizer step `step`."""
        rate = self._rate(step)
        return rate * (step + 1) / self.warmup if step < self.warmup else rate

    def _rate(self, step: int) -> float:
        if self.kind == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        if self.kind == "steps":
            passed = bisect.bisect_right(self.changes, step)
            return self.values[passed - 1] if passed else self.lr
        return self.lr
