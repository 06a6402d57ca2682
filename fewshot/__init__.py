"""fewshot: does this regularizer, backbone or head really help few-shot learning?

From Python: `fewshot.load(RUN)` gives a run's trained embedding; `fewshot.benchmark(model, ...)` scores any network;
`fewshot.backbones.build`, `fewshot.heads.build` and `fewshot.regularizers.build` give the parts. Commands: `python -m fewshot`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.model import Model

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`fewshot.heads` after `import fewshot` alone: imported when asked for, since torch is slow to import."""
    if name == "benchmark":
        return importlib.import_module("fewshot.evaluation.benchmark").benchmark
    if name in ("backbones", "heads", "regularizers", "transforms"):
        return importlib.import_module(f"fewshot.{name}")
    raise AttributeError(f"module 'fewshot' has no attribute {name!r}")


def load(run: str | os.PathLike, device: str = "auto") -> Model:
    """The trained embedding of a run folder, best weights, in evaluation mode: an `nn.Module`.

    `load("runs/x").embed(images)` takes uint8 images (N, S, S, 3) and returns float32 (N, D).
    Raises UserError (a ValueError) where the folder is no run, or its weights are missing or damaged.
    """
    from fewshot import model
    from fewshot.core import compute  # likewise
    from fewshot.runs import Run

    return model.load_run(Run.open(run), compute.choose(device))
