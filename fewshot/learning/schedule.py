"""Learning rates by step."""

from __future__ import annotations

import bisect
import math

from fewshot.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0.

    cosine: half a wave from lr to 0 over all steps (Loshchilov & Hutter, ICLR 2017, eq. 5, no
    restart). steps: lr, then lr_values[i] from epoch lr_epochs[i] on. constant: lr.
    """
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
    if config.schedule == "steps":
        passed = bisect.bisect_right(config.lr_epochs, config.epochs_done(step))
        return config.lr_values[passed - 1] if passed else config.lr
    return config.lr
