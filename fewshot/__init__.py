"""fewshot: does this regularizer, backbone or head really help few-shot learning?

    fewshot.benchmark(network, dataset="glyphs")    score any network, or features, on the standard tasks
    fewshot.difference("runs/a", "runs/b")          what two runs prove about each other
    fewshot.evaluate_learner(learner)               score a learner that adapts to each task, such as MAML
    fewshot.load("runs/x")                          a run's trained embedding, an nn.Module
    fewshot.run(fewshot.configure(reg="targetdrop"))    train, select, evaluate: one experiment

The parts: `fewshot.backbones.build`, `fewshot.heads.build`, `fewshot.transforms.build`, `fewshot.regularizers.build`.
`fewshot.open_dataset` opens a prepared data set; `fewshot.testing` checks the laws that your own components must obey.
Errors that the user can mend are raised as `fewshot.UserError`, a ValueError. The commands: `python -m fewshot`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as signal, without the time that its enumerations take
import sys

# Our first lines: `python -m fewshot.train` runs them before any others. Until the command handles its signals
# (core/process.py), Ctrl-C ends it at once: nothing has begun, and Python would raise KeyboardInterrupt, which prints a
# traceback, or is swallowed inside a callback of the import system.
if sys.argv[:1] == ["-m"] and "fewshot" in [
    name.partition(".")[0] for flag, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False) if flag == "-m"
]:
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import importlib
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewshot.core.errors import UserError
from fewshot.version import __version__

if TYPE_CHECKING:
    from fewshot import backbones, heads, regularizers, testing, transforms
    from fewshot.config import TrainConfig
    from fewshot.data import open_dataset
    from fewshot.defaults import configure
    from fewshot.evaluation.adapt import evaluate_learner
    from fewshot.evaluation.benchmark import benchmark
    from fewshot.evaluation.foreign import Origin
    from fewshot.experiment import run
    from fewshot.model import Model
    from fewshot.reports.comparisons.difference import difference

__all__ = [
    "Origin", "TrainConfig", "UserError", "__version__", "backbones", "benchmark", "configure", "difference",
    "evaluate_learner", "heads", "load", "open_dataset", "regularizers", "run", "testing", "transforms",
]  # fmt: skip

# Imported when asked for: torch is slow to import, and `--help` must not wait for it.
_LATER = {
    "benchmark": "fewshot.evaluation.benchmark", "evaluate_learner": "fewshot.evaluation.adapt",
    "Origin": "fewshot.evaluation.foreign", "run": "fewshot.experiment",
    "difference": "fewshot.reports.comparisons.difference",
    "configure": "fewshot.defaults", "open_dataset": "fewshot.data",
    "TrainConfig": "fewshot.config",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name in __all__:
        return importlib.import_module(f"fewshot.{name}")
    raise AttributeError(f"module 'fewshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def load(run: str | os.PathLike, device: str = "auto", trust: Sequence[str] = ()) -> Model:
    """The trained embedding of a run folder, an `nn.Module`, with its best weights and in evaluation mode.

    `load("runs/x").embed(images)` takes uint8 images (N, S, S, 3) and returns float32 (N, D).

    trust: your own modules and packages whose code may run, such as ("my_pkg",), if the run names components in them.
        Code that you have trained with on this machine, and not changed since, needs no permission.

    Raises UserError (a ValueError) if the folder is not a run, its weights are missing or damaged, or it names code
    that you have not allowed.
    """
    from fewshot import model
    from fewshot.core import compute
    from fewshot.runs import Run

    if isinstance(trust, str):
        raise UserError(f"trust={trust!r}: give a sequence of names, such as ({trust!r},)")
    folder = Run.open(run)
    if changed := folder.changed_code:
        told = f"{changed} has changed since {run} was trained: it is used with the new code"
        warnings.warn(told, stacklevel=2)
    return model.load_run(folder, compute.choose(device), trust)
