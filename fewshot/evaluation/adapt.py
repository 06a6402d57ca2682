"""Score a learner that adapts to each task, such as MAML, on the standard tasks: `fewshot.evaluate_learner`.

Shapes: N support and Q query images a task, W ways (classes), S pixels a side.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.core import compute
from fewshot.core.compute import full_fp32
from fewshot.core.console import counting
from fewshot.core.errors import UserError
from fewshot.core.seeding import derive, reseed
from fewshot.data import Dataset, opened
from fewshot.data.augment import to_unit
from fewshot.data.images import ImageSource, Normalise
from fewshot.episodes import Tasks, frozen
from fewshot.evaluation import foreign
from fewshot.evaluation.foreign import Origin
from fewshot.evaluation.score import disjoint_tasks
from fewshot.evaluation.scores import Score, protocols

Learner = Callable[[Tensor, Tensor, Tensor], Any]
"""(support images (N, 3, S, S), labels (N,) in 0..W-1, query images (Q, 3, S, S)) -> logits (Q, W), or classes (Q,)."""

_ALIKE = 1e-3  # of the largest logit: what rounding may change when queries come in other batches


def evaluate_learner(
    learner: Learner,
    dataset: str | Dataset | None = None,
    shots: int | Sequence[int] = (1, 5),
    *,
    name: str = "",
    setting: Literal["inductive", "transductive"] = "inductive",
    split: str = "test",
    ways: int = 5,
    queries: int = 15,
    episodes: int = 10_000,
    query_alpha: float | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    device: str = "auto",
    data_root: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    origin: Origin | None = None,
) -> list[Score]:
    """Accuracy of an adapting learner on the tasks of `benchmark` and the commands: one Score for each of `shots`.

    learner: called once a task, with its support images, their labels, and its query images in random order; returns
        logits (Q, W) or classes (Q,), tensor or array. It may take gradients, and must be unchanged after each task.
        An inductive learner is called a second time for the first task of each list, with half of its queries.
        torch's random numbers, on the CPU and on the images' device, are seeded before each task, by its number.
    name: of the method in tables, such as "maml"; by default that of the learner's class or function.
    setting: "transductive" if a query's answer depends on the other queries of its task, as when batch norm takes its
        statistics from them. Tables rank the two settings separately.
    dataset, shots, split, ways, queries, episodes, query_alpha, data_root: as for `benchmark`.
    preprocess: turns images (B, 3, S, S) in [0, 1] into what the learner takes; by default they are normalised with the
        training split's mean and standard deviation.
    device: of the images that the learner gets; by default that of the learner's weights, or for a function a GPU if
        there is one.
    out, origin: a run folder to make, and what you say in it about the network: as for `benchmark`.

    Raises UserError (a ValueError) if the learner returns something else, naming the task; if it is said to be
    inductive, but answers the first task differently when half of the queries are left out; and if the data set is
    missing or too small for the tasks.
    """
    forms = protocols(shots, ways, queries, episodes, query_alpha)
    foreign.check_out(out, origin)
    if setting not in ("inductive", "transductive"):
        raise UserError(f"setting={setting!r}: give inductive or transductive")
    dataset = opened(dataset, data_root)
    if device == "auto" and isinstance(learner, nn.Module) and (weight := next(learner.parameters(), None)) is not None:
        device = str(weight.device)
    where = compute.choose(device, "fp32")
    preprocess = preprocess or Normalise(dataset.mean, dataset.std).to(where.device)
    wanted = [frozen.standard_tasks(dataset, split, protocol, episodes) for protocol in forms]
    if warning := frozen.pixel_warning(dataset, wanted):
        warnings.warn(warning, stacklevel=2)
    tasks = wanted if out is None else [*wanted, *disjoint_tasks(wanted)]
    source = ImageSource(dataset[split], where.device)
    random = torch.random.fork_rng([where.device] if where.device.type == "cuda" else [])
    with counting(sum(each.episodes for each in tasks), "tasks") as advance, random, full_fp32():
        scored = [_solve(learner, source, preprocess, each, setting == "inductive", advance) for each in tasks]
    if out is not None:
        method = name or getattr(learner, "__name__", type(learner).__name__)
        network = learner if isinstance(learner, nn.Module) else None
        parameters = sum(weight.numel() for weight in network.parameters()) if network else None
        about = foreign.Solver("unknown", method, setting, foreign.digest(*scored), parameters=parameters)
        foreign.keep(out, origin or Origin(), about, dataset, tasks, scored, where)
    return [Score.of(dataset, *each, setting) for each in zip(wanted, scored, strict=False)]


def _solve(
    learner: Learner,
    source: ImageSource,
    preprocess: Callable[[Tensor], Tensor],
    tasks: Tasks,
    inductive: bool,
    advance: Callable[[int], None],
) -> np.ndarray:
    """How many queries of each class were right in each task, (episodes, W) int32."""
    ways = tasks.protocol.ways
    labels = torch.arange(ways).repeat_interleave(tasks.protocol.shots).to(source.device)
    right = np.empty((tasks.episodes, ways), np.int32)

    def images(index: np.ndarray) -> Tensor:
        held, positions = source.fetch(index)
        return preprocess(to_unit(held[positions]))

    def answer(number: int, support: Tensor, query: Tensor) -> Tensor:
        reseed(derive(tasks.sampler.seed, number, "learner"), source.device)
        given = learner(support.clone(), labels.clone(), query.clone())
        return _checked(given, len(query), ways, f"{tasks.protocol} task {number}")

    for number in range(tasks.episodes):
        drawn = tasks.sampler.episodes(number, 1)
        order = np.random.default_rng(derive(tasks.sampler.seed, number, "order for a learner")).permutation(
            drawn.query.shape[1]
        )
        support, query, truth = images(drawn.support.ravel()), images(drawn.query[0, order]), drawn.labels[0, order]
        answers = answer(number, support, query)
        if number == 0 and inductive:
            half = len(query) // 2
            _check_alone(answers[:half], answer(number, support, query[:half]))
        predicted = (answers.argmax(1) if answers.ndim == 2 else answers).numpy()
        right[number] = np.bincount(truth[predicted == truth], minlength=ways)
        advance(1)
    return right


def _checked(answers: Any, queries: int, ways: int, task: str) -> Tensor:
    """What a learner returned, on the CPU: logits (Q, W), or classes (Q,). Raises UserError if it is neither."""
    try:
        found = torch.as_tensor(answers).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{task}: the learner returned a {type(answers).__name__}, not logits or classes") from None
    if found.shape == (queries,):
        if found.is_floating_point() or found.dtype == torch.bool or not ((found >= 0) & (found < ways)).all():
            raise UserError(f"{task}: the learner's classes must be integers from 0 to {ways - 1}")
    elif found.shape != (queries, ways):
        shape = tuple(found.shape)
        raise UserError(f"{task}: give logits ({queries}, {ways}) or classes ({queries},), not of shape {shape}")
    elif found.dtype == torch.bool or found.is_complex():
        raise UserError(f"{task}: the learner's logits must be real numbers, not {found.dtype}")
    elif not found.isfinite().all():
        raise UserError(f"{task}: the learner's logits are not finite")
    return found


def _check_alone(together: Tensor, alone: Tensor) -> None:
    """Raise UserError if answers to the same queries differ by more than rounding."""
    alike = torch.equal(together, alone)
    if together.is_floating_point() and not alike:
        alike = bool((together - alone).abs().max() <= _ALIKE * together.abs().max())
    if not alike:
        raise UserError(
            "the learner answers a query differently where other queries are left out: give setting='transductive', or"
            " make it repeatable (batch norm in evaluation mode, no randomness but torch's)"
        )
