"""fewshot: does this regularizer, backbone or head really help few-shot learning?

From Python: `fewshot.load(RUN)` gives a run's trained embedding; `fewshot.backbones.build`,
`fewshot.heads.build` and `fewshot.regularizers.build` give the parts. Commands: `python -m fewshot`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewshot.model import Model

__version__ = "0.1.0"


def load(run: str | os.PathLike, device: str = "auto") -> Model:
    """The trained embedding of a run folder, best weights, in evaluation mode: an `nn.Module`.

    `load("runs/x").embed(images)` takes uint8 images (N, S, S, 3) and returns float32 (N, D).
    Raises UserError (a ValueError) where the folder is no run, or its weights are missing or damaged.
    """
    from fewshot import compute, model  # torch is slow to import, and `--help` passes through here
    from fewshot.runs import Run

    return model.load_run(Run.open(run), compute.choose(device))
