"""Everything needed to go on exactly, in one file that is there whole or not at all.

No generator state is kept: all randomness of a step comes from (seed, step).
"""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic


@dataclass
class Progress:
    """How far training has come."""

    step: int = 0
    """Optimizer steps done."""
    best_accuracy: float = -1.0
    best_step: int = 0
    metrics_bytes: int = 0
    """Length of metrics.jsonl at this step."""
    train_seconds: float = 0.0
    """Wall time in training steps and validation, over all sittings."""


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint atomically."""
    buffer = io.BytesIO()  # torch.save on a full disk raises what no one can tell from a bug of ours
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": dataclasses.asdict(progress)}
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Read a checkpoint into model and optimizer. UserError where it is damaged or of another run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])
    except (OSError, torch.OutOfMemoryError):  # the machine's fault, not the file's: it must not be deleted
        raise
    except Exception as error:  # noqa: BLE001  (torch.load raises nearly anything on a damaged file)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}); delete it to start again from step 0") from None
