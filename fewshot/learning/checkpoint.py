"""Everything needed to go on exactly, in one file that is there whole or not at all.

No generator state is kept: all randomness of a step comes from (seed, step).
"""

from __future__ import annotations

import dataclasses
import io
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic


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


_LARGEST = 8 * 2**30  # bytes
_TYPES = typing.get_type_hints(Progress)


def save(path: Path, state: dict[str, Any], progress: Progress) -> None:
    """Write a checkpoint atomically: state dicts by name, and how far training has come."""
    buffer = io.BytesIO()  # torch.save on a full disk raises what no one can tell from a bug of ours
    torch.save(state | {"progress": dataclasses.asdict(progress)}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path, restore: Callable[[dict[str, Any]], None]) -> Progress:
    """Read a checkpoint, and hand its state dicts to `restore`. UserError where it is damaged or of another run."""
    data = read_bounded(path, _LARGEST)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if mistake := typed.wrong(state["progress"], _TYPES, _TYPES):
            raise ValueError(mistake)
        restore(state)
        return Progress(**state["progress"])
    except (MemoryError, torch.OutOfMemoryError):  # the machine's fault, not the file's: it must not be deleted
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}); delete it to start again from step 0") from None
