"""Weights that somebody else trained: read from a file without executing any of it, and loaded into a network."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded
from fewshot.core.tensors import serialised

_LARGEST = 16 * 2**30  # bytes
_WITHIN = ("state_dict", "model_state_dict", "model")  # where others' checkpoints keep their weights
_SHOWN = 3


def read(path: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of a .safetensors file, or of a state dict that torch.save wrote; and the file's SHA-256.

    A state dict within a checkpoint is found under its usual names, and `module.` before each name is left out.
    Raises UserError if there is no such file, or if it holds anything but tensors.
    """
    try:
        data = read_bounded(Path(path), _LARGEST)
    except OSError as error:
        why = error.strerror
        raise UserError(f"weights={path}: cannot be read ({why}); give a .safetensors or .pth file") from None
    try:
        if path.endswith(".safetensors"):
            found: Any = safetensors.torch.load(data)
        else:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            found = next((found[name] for name in _WITHIN if isinstance(found.get(name), Mapping)), found)
        state = {name.removeprefix("module."): tensor for name, tensor in found.items()}
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError("it does not hold tensors alone")
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception as error:
        raise UserError(
            f"weights={path}: this is no state dict that can be read safely ({first_line(error)}); save one by"
            " torch.save(network.state_dict(), FILE)"
        ) from None
    return state, hashlib.sha256(data).hexdigest()


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names."""
    return hashlib.sha256(serialised(state)).hexdigest()


def fill(network: nn.Module, state: Mapping[str, Tensor], removed: Iterable[str], source: str) -> None:
    """Load these weights into `network`, except those of modules that were `removed` from it.

    Raises UserError, starting with `source`, that names the first ones that are missing, unknown or of another shape.
    """
    off = tuple(f"{name}." for name in removed)
    theirs = {name: tensor for name, tensor in state.items() if not name.startswith(off)}
    ours = network.state_dict()
    wrong = {
        "missing": [name for name in ours if name not in theirs],
        "unknown": [name for name in theirs if name not in ours],
        "of another shape": [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape],
    }
    if any(wrong.values()):
        said = "; ".join(f"{_some(names)} {what}" for what, names in wrong.items() if names)
        raise UserError(f"{source}: these are weights of another network: {said}")
    network.load_state_dict(theirs)


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(itertools.islice(names, _SHOWN)) + (f" and {more} more" if more > 0 else "")


def first_line(error: Exception) -> str:
    """What an error says, in one line of bearable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
