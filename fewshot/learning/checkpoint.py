"""Everything needed to go on exactly, in one file that is there whole or not at all.

No generator state is kept: all randomness of a step comes from (seed, step). The file's own digest follows what torch
writes (core/sealed.py). What torch writes includes the identity of the run, and the digests of the metrics and weights
that the checkpoint counts on.
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

from fewshot.core import sealed, typed
from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic


@dataclass
class Progress:
    """How far training has come."""

    step: int = 0
    """Optimizer steps done."""
    best_accuracy: float = float("-inf")
    best_step: int = 0
    metrics_bytes: int = 0
    """Length of metrics.jsonl at this step."""
    metrics_sha256: str = ""
    """Of the first `metrics_bytes` bytes of it; "" in checkpoints of older versions."""
    best_sha256: str = ""
    """Of best.safetensors; "" before the first validation, and in checkpoints of older versions."""
    train_seconds: float = 0.0
    """Wall time in training steps and validation, over all sittings."""


_LARGEST = 8 * 2**30  # bytes
_TYPES = typing.get_type_hints(Progress)
_ALWAYS = _TYPES.keys() - {"metrics_sha256", "best_sha256"}


def save(path: Path, state: dict[str, Any], progress: Progress, identity: str) -> None:
    """Write a checkpoint atomically: state dicts by name, how far training has come, and the run's identity.

    Raises UserError if it would be too large to be read again.
    """
    data = dump(state, progress, identity)  # to memory first: on a full disk, torch.save fails as if by a bug of ours
    write_atomic(path, data, sealed.seal_line(data), most=_LARGEST)


def dump(state: dict[str, Any], progress: Progress, identity: str) -> memoryview:
    """The content of a checkpoint's file, without its digest."""
    buffer = io.BytesIO()
    torch.save(state | {"progress": dataclasses.asdict(progress), "run": identity}, buffer)
    return buffer.getbuffer()


def load(path: Path, restore: Callable[[dict[str, Any]], None], identity: str, sealed_only: bool = True) -> Progress:
    """Read a checkpoint, and hand its state dicts to `restore`.

    Raises UserError if it is damaged, or not of the run of this `identity`; with `sealed_only`, also if it has no
    digest, like those of older versions.
    """
    data = read_bounded(path, _LARGEST)
    try:
        if not sealed.check_line(data) and sealed_only:
            raise ValueError("it lacks its sha256")
        return parse(data, restore, identity)
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # the machine's fault, not the file's: it must not be deleted
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}); delete it to start again from step 0") from None


def parse(data: bytes, restore: Callable[[dict[str, Any]], None], identity: str) -> Progress:
    """Read what `dump` gave, and hand its state dicts to `restore`.

    Raises ValueError, or what torch raises, if it is not that.
    """
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if state.get("run", identity) != identity:
        raise ValueError("it is another run's")
    if mistake := typed.wrong(state["progress"], _TYPES, _ALWAYS):
        raise ValueError(mistake)
    restore(state)
    return Progress(**state["progress"])
