"""A run folder for what was trained elsewhere: results that compare and rank like those of our own runs.

Its config.json has the regime `foreign`, and says no more about a training than the user says (`Origin`). Network and
weights are not in it. Two such runs count as one training only if they agree in that and in `digest`, which is made
from what was scored; if the user names a seed, `digest` is not compared.
"""

from __future__ import annotations

import hashlib
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from fewshot.config import TrainConfig
from fewshot.core import typed
from fewshot.core.compute import Compute, describe
from fewshot.core.errors import UserError
from fewshot.core.files import new_folder, writable_parent
from fewshot.data import Dataset
from fewshot.episodes import Tasks
from fewshot.evaluation.score import add_rows, evaluated_by, make_records
from fewshot.runs import FOREIGN, Run

_LETTERS = 16  # of a digest


@dataclass(frozen=True)
class Origin:
    """What you say about a network that fewshot did not train. Tables show it, and nobody can check it."""

    network: str = ""
    """Its name; by default that of its class, `features` where features were given, `unknown` for a learner."""
    reg: str = "unknown"
    """How it was regularized."""
    dataset: str = "unknown"
    """What it was trained on."""
    seed: int | None = None
    """The seed of its training. Runs that differ in nothing else are then pooled as seeds of one method; without a
    seed, two networks are two methods."""
    train_seconds: float = 0.0
    """How long its training took; 0 if nobody knows."""

    def __post_init__(self) -> None:
        if mistake := typed.wrong(vars(self), typing.get_type_hints(Origin)):
            raise UserError(f"origin: {mistake}")


@dataclass(frozen=True)
class Solver:
    """What solved the tasks, as rows name it."""

    network: str
    """Used if the origin gives no name."""
    head: str
    setting: str
    digest: str
    """Of what was scored: another network has another digest."""
    transform: str = "none"
    parameters: int | None = None
    """Of the network; None if not known."""
    features: int | None = None
    code: str = ""
    """Digest of the user's own modules that head and transform come from, if there are any."""


def check_out(out: str | os.PathLike | None, origin: object) -> None:
    """Raise UserError if no new folder `out` of that origin can be made: before any work. None: none is to be made."""
    if origin is not None and out is None:
        raise UserError("origin is for the run folder: give out, too")
    if not isinstance(origin, Origin | None):
        raise UserError(f"origin={origin!r}: give a fewshot.Origin")
    if out is not None:
        if os.path.lexists(out):
            raise UserError(f"{out} exists: give another out")
        writable_parent(Path(out))


def keep(
    out: str | os.PathLike,
    origin: Origin,
    solver: Solver,
    dataset: Dataset,
    tasks: Sequence[Tasks],
    scored: Sequence[np.ndarray],
    compute: Compute,
) -> None:
    """Make the run folder `out`, whole or not at all. Raises UserError if it exists by now.

    `tasks`: the wanted ones, then, in the same order, those of `score.disjoint_tasks`; `scored`: the right queries of
    each class in each of their episodes, (episodes, W).
    """
    config = TrainConfig(
        regime=FOREIGN, recipe=FOREIGN, dataset=origin.dataset, reg=origin.reg, epochs=0, seed=origin.seed or 0,
        backbone=origin.network or solver.network, head=solver.head, transform=solver.transform,
    )  # fmt: skip
    resolved: dict[str, object] = {
        name: value for name in ("parameters", "features") if (value := getattr(solver, name)) is not None
    }
    if origin.seed is None:  # as a training of no steps: what it began with is what it is
        resolved["init"] = {"run": "", "weights": solver.digest}
    where = {"device": describe(compute.device), "precision": compute.precision}
    row = {
        "head": solver.head, "transform": solver.transform, "setting": solver.setting, "dataset": dataset.name,
        **dataset.fingerprints, "evaluated_by": evaluated_by(compute),
    } | ({"solver_code": solver.code} if solver.code else {})  # fmt: skip
    try:
        with new_folder(Path(out)) as work:
            run = Run(work)
            run.begin(config, resolved)
            run.note_environment(**where, train_seconds=float(origin.train_seconds))
            add_rows(run, tasks[: len(tasks) // 2], make_records(tasks, scored), row, tested=True)
    except FileExistsError:
        raise UserError(f"{out} exists by now: give another out") from None


def digest(*parts: Tensor | nn.Module | np.ndarray) -> str:
    """A digest of embeddings and other arrays, and of modules: what they are and their weights."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            found.update(repr(part).encode())
            arrays = [tensor.detach().cpu().float().numpy() for tensor in part.state_dict().values()]
        else:
            arrays = [part.detach().cpu().numpy() if isinstance(part, Tensor) else part]
        for array in arrays:
            found.update(repr((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:_LETTERS]
