"""Classifiers with `fit` and `predict`, such as scikit-learn's, solve tasks one by one, on all cores.

Nothing of scikit-learn is imported here: any object with the two methods will do. Each task gets a fresh clone, with
its own random state if the classifier has one and none is set: the same bits on any number of cores. The setting is
inductive as far as `predict` is: it sees all queries of a task at once, in shuffled order.

Worker processes import this module, so it must not make them wait for torch.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot.core.console import counting
from fewshot.core.errors import UserError
from fewshot.core.seeding import derive

if TYPE_CHECKING:
    from fewshot.episodes import Tasks

_CHUNK = 50  # tasks that a worker solves before it asks for more
_WORTH_WORKERS = 5.0  # seconds of work: less is done before workers have started
_LONGEST = 100  # characters of a classifier's name


def is_classifier(value: object) -> bool:
    """Whether it is an object with the two methods; a class has them, too, but is not a classifier."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("fit", "predict"))


def called(classifier: object) -> str:
    """`LinearSVC(C=0.5)`: what scikit-learn prints, with the options that are not defaults; for others, the class."""
    options = hasattr(classifier, "get_params")
    text = " ".join(repr(classifier).split()) if options else type(classifier).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def solve(classifier: Any, features: np.ndarray, wanted: Sequence[Tasks], jobs: int = 0) -> list[np.ndarray]:
    """How many queries of each class were right in each task, (episodes, W) int32: one array for each of `wanted`.

    features (I, D) of their split. jobs: worker processes; 0: one for each core, or none if that is not worth it.

    Raises UserError for the first task in which the classifier fails, or predicts something that is not a class. One
    warning says in how many tasks it warned.
    """
    features = np.ascontiguousarray(features, np.float64)
    chunks = [
        (tasks, first, min(_CHUNK, tasks.episodes - first))
        for tasks in wanted
        for first in range(0, tasks.episodes, _CHUNK)
    ]
    counts: dict[int, list[np.ndarray]] = {id(tasks): [] for tasks in wanted}
    total, warned, example = sum(tasks.episodes for tasks in wanted), 0, ""
    with counting(total, "tasks") as advance:
        for (tasks, first, count), (right, complaints, failure) in zip(
            chunks, _results(classifier, features, chunks, jobs), strict=True
        ):
            if failure is not None:
                task = f"task {first + len(right)} ({tasks.protocol}, {tasks.sampler.split.name})"
                raise UserError(f"{task}: {called(classifier)} {failure}")
            counts[id(tasks)].append(right)
            warned, example = warned + len(complaints), example or next(iter(complaints), "")
            advance(count)
    if warned:
        told = f"{called(classifier)} warned in {warned:,} of {total:,} tasks, first: {example}"
        warnings.warn(told, stacklevel=4)  # of benchmark's caller
    return [np.concatenate(counts[id(tasks)]) for tasks in wanted]


def _results(classifier: Any, features: np.ndarray, chunks: Sequence[tuple], jobs: int) -> Iterator[tuple]:
    """What `_solve_chunk` makes of each chunk, in their order. The first is solved here, to see how long they take."""
    arguments = ((classifier, features, *_drawn(*chunk)) for chunk in chunks)
    began = time.perf_counter()
    yield _solve_chunk(*next(arguments))
    left = (time.perf_counter() - began) * (len(chunks) - 1)
    joblib = _joblib() if jobs > 1 or (jobs == 0 and left > _WORTH_WORKERS) else None
    if joblib is None:
        yield from (_solve_chunk(*each) for each in arguments)
    else:
        workers = joblib.Parallel(n_jobs=jobs or -1, return_as="generator")
        yield from workers(joblib.delayed(_solve_chunk)(*each) for each in arguments)


def _joblib() -> Any:
    """The package, which scikit-learn brings along; None if it is not installed."""
    try:
        import joblib
    except ImportError:
        return None
    return joblib


def _drawn(tasks: Tasks, first: int, count: int) -> tuple[tuple[np.ndarray, ...], list[int]]:
    """Tasks as (T, W, S) support images, (T, W*Q) query images and their classes, and a seed for each."""
    seeds = [derive(tasks.sampler.seed, number, "classifier") for number in range(first, first + count)]
    return tuple(tasks.sampler.episodes(first, count)), seeds


def _solve_chunk(
    classifier: Any, features: np.ndarray, drawn: tuple[np.ndarray, ...], seeds: Sequence[int]
) -> tuple[np.ndarray, list[str], str | None]:
    """(right queries (T, W) int32, one warning a task that warned, how the task after the last of these failed)."""
    ways, shots = drawn[0].shape[1:]
    labels = np.arange(ways).repeat(shots)
    right = np.zeros((len(seeds), ways), np.int32)
    complaints: list[str] = []
    for n, (support, query, truth, seed) in enumerate(zip(*drawn, seeds, strict=True)):
        order = np.random.default_rng(seed).permutation(len(query))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                fitted = _fresh(classifier, seed)
                fitted.fit(features[support.ravel()], labels)
                predicted = np.asarray(fitted.predict(features[query[order]]))
            except Exception as error:
                return right[:n], complaints, " ".join(f"raised {type(error).__name__}: {error}".split())
        complaints += [f"{heard[0].category.__name__}: {heard[0].message}"] if heard else []
        if predicted.shape != query.shape or not np.isin(predicted, labels).all():
            return right[:n], complaints, f"predicted {_shown(predicted)}, not one of 0..{ways - 1} for each query"
        right[n] = np.bincount(truth[order][predicted == truth[order]], minlength=ways)
    return right, complaints, None


def _fresh(classifier: Any, seed: int) -> Any:
    """An unfitted copy, with those random states set that were not."""
    options = getattr(classifier, "get_params", None)
    if options is None or "sklearn" not in sys.modules:
        return copy.deepcopy(classifier)
    made = sys.modules["sklearn"].clone(classifier)
    unset = {key: seed % 2**32 for key, value in options().items() if value is None and _is_random_state(key)}
    return made.set_params(**unset) if unset else made


def _is_random_state(option: str) -> bool:
    return option.rpartition("__")[2] == "random_state"


def _shown(predicted: np.ndarray) -> str:
    return f"{predicted.dtype} of shape {predicted.shape}"
