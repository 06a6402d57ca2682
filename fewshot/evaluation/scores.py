"""What scoring returns in Python: one line for each number of shots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fewshot.config import MOST_EPISODES
from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.data import Dataset
from fewshot.episodes import Protocol, Tasks
from fewshot.episodes.sampler import protocol_name
from fewshot.evaluation.solve import accuracies
from fewshot.evaluation.statistics import summarise


@dataclass(frozen=True)
class Score:
    """One line of a benchmark; accuracies are fractions of 1. `print` shows it as one line of text."""

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    episodes: int
    accuracy: float
    std: float
    """Of the episodes, divisor n - 1."""
    ci95: float
    """Half-width of the field's interval, 1.96 * std / sqrt(n): for this test set's own value."""
    episodes_digest: str
    task_list: str | None
    """The frozen list that the episodes were verified against, if there is one."""
    fingerprint: str
    """Of the data set's pixels."""
    setting: str
    """"inductive", or "transductive" if the head saw all queries of a task together. Never rank the two together."""
    query_alpha: float | None
    """Concentration of the Dirichlet distribution that numbers of queries are drawn from; None for balanced tasks.
    Never rank the two together."""
    accuracies: np.ndarray = field(repr=False, compare=False)
    """(episodes,) float64: for `evaluation.statistics.paired_difference`, which compares two networks task by task."""

    def __str__(self) -> str:
        task = f"{self.dataset} {self.split}, {protocol_name(self.ways, self.shots, self.query_alpha)}"
        task += ", transductive" * (self.setting == "transductive")
        return f"{task}: {100 * self.accuracy:.2f} ± {100 * self.ci95:.2f} % ({self.episodes:,} episodes)"

    @classmethod
    def of(cls, dataset: Dataset, tasks: Tasks, right: np.ndarray, setting: str) -> Score:
        """From the right queries of each class in each task, (episodes, W)."""
        protocol, values = tasks.protocol, accuracies(right, tasks.protocol.queries)
        summary = summarise(values)
        return cls(
            dataset.name, tasks.sampler.split.name, protocol.ways, protocol.shots, protocol.queries, tasks.episodes,
            summary.accuracy, summary.std, summary.ci95, tasks.digest, tasks.frozen.name if tasks.frozen else None,
            dataset.fingerprint, setting, protocol.query_alpha, values,
        )  # fmt: skip


def protocols(
    shots: int | Iterable[int], ways: int, queries: int, episodes: int, query_alpha: float | None = None
) -> list[Protocol]:
    """The form of the tasks for each number of shots. Raises UserError for impossible numbers."""
    if typed.integer(episodes, "episodes", 0, MOST_EPISODES) < 2:
        raise UserError(f"episodes={episodes}: an interval needs at least 2")
    form = {name: typed.integer(value, name) for name, value in (("ways", ways), ("queries", queries))}
    each_shots = [typed.integer(n, "shots") for n in (shots if isinstance(shots, Iterable) else [shots])]
    if not each_shots:
        raise UserError("shots is empty: give at least one number")
    return [Protocol(shots=n, query_alpha=query_alpha, **form) for n in dict.fromkeys(each_shots)]
