"""Frozen task lists: the standard evaluation episodes, as a definition that any machine can regenerate and verify.

    episodes/mini-imagenet-test-5w1s15q.json

`scripts/freeze_episodes.py` writes them. An evaluation under a protocol that has a list runs on exactly the list's
tasks, or ends with an error. episodes/README.md describes the format.
"""

from __future__ import annotations

import json
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot.config import MOST_EPISODES
from fewshot.core import typed
from fewshot.core.errors import UserError, nearest
from fewshot.core.files import read_bounded
from fewshot.core.shipped import shipped
from fewshot.data import Dataset
from fewshot.episodes.sampler import EpisodeSampler, Protocol, plain_number

LISTS = shipped("episodes")
_LARGEST = 1 << 20  # bytes of a list
SEED = 0  # of the standard evaluation episodes


def task_name(dataset: str, split: str, protocol: Protocol, seed: int = SEED) -> str:
    """The name of a list, and of a run's files: `mini-imagenet-test-5w1s15q`.

    Unbalanced queries add `-dirichlet2`, another seed than 0 adds `-seed7`.
    """
    unbalanced = f"-dirichlet{plain_number(protocol.query_alpha)}" if protocol.query_alpha is not None else ""
    other = f"-seed{seed}" if seed != SEED else ""
    return f"{dataset}-{split}-{protocol.ways}w{protocol.shots}s{protocol.queries}q{unbalanced}{other}"


@dataclass(frozen=True)
class Tasks:
    """The first `episodes` episodes of a sampler."""

    sampler: EpisodeSampler
    episodes: int
    frozen: TaskList | None = None
    """The list that the sampler was verified against, if there is one."""

    @property
    def protocol(self) -> Protocol:
        return self.sampler.protocol

    @property
    def digest(self) -> str:
        """SHA-256 of all of them: EpisodeSampler.digest."""
        return self.sampler.digest(self.episodes)


@dataclass(frozen=True)
class TaskList:
    """The first `episodes` episodes of a data set's split, with the digests that verify them."""

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    seed: int
    episodes: int
    membership: str
    """Split.membership: digest of class names, their order and image counts. With the fields above it decides the
    episodes."""
    digest: str
    """EpisodeSampler.digest of them."""
    fingerprint: str
    """Of the pixels of the reference copy; "" if there is none. Other pixels give the same tasks, and slightly
    different accuracies."""
    query_alpha: float | None = None
    """Protocol.query_alpha. Lists of balanced tasks lack it."""

    @property
    def protocol(self) -> Protocol:
        return Protocol(self.ways, self.shots, self.queries, self.query_alpha)

    @property
    def name(self) -> str:
        return task_name(self.dataset, self.split, self.protocol, self.seed)

    def to_json(self) -> dict[str, Any]:
        """What a list's file holds."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def tasks(self, dataset: Dataset, episodes: int | None = None) -> Tasks:
        """Its tasks on a data set: the first `episodes`, or all of them. Beyond its last, the same sequence continues.

        Raises UserError if the data set is another, has other classes or counts, or if the digest is not the list's.
        """
        if dataset.name != self.dataset:
            raise UserError(f"task list {self.name} is for data set {self.dataset}, not {dataset.name}")
        split = dataset[self.split]
        if split.membership != self.membership:
            raise UserError(
                f"task list {self.name}: the classes or image counts of this {dataset.name}'s {self.split} split are"
                f" not the list's (membership {split.membership[:12]}, the list's is {self.membership[:12]});"
                f" prepare the standard split, or this one under another name than {dataset.name}"
            )
        sampler = EpisodeSampler(split, self.protocol, self.seed)
        digest = sampler.digest(self.episodes)
        if digest != self.digest:
            raise UserError(
                f"task list {self.name}: its episodes have the digest {digest[:12]}, not {self.digest[:12]} as it says:"
                " the list is damaged, or was made by another version; take the published one"
            )
        return Tasks(sampler, episodes or self.episodes, self)


def freeze(dataset: Dataset, split: str, protocol: Protocol, episodes: int = 10_000, seed: int = SEED) -> TaskList:
    """The list of a data set's first episodes. Raises UserError if `read` would refuse it."""
    episodes = typed.integer(episodes, "episodes", 2, MOST_EPISODES)
    sampler = EpisodeSampler(dataset[split], protocol, seed)
    return TaskList(
        dataset.name, split, protocol.ways, protocol.shots, protocol.queries, sampler.seed, episodes,
        dataset[split].membership, sampler.digest(episodes), dataset.fingerprint, protocol.query_alpha,
    )  # fmt: skip


def read(name: str) -> TaskList:
    """A list by its name, if it comes with the project, or by its path. Raises UserError if it is no task list."""
    path = LISTS / f"{name}.json"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        near = f"; did you mean {other!r}?" if (other := nearest(name, names())) else ""
        raise UserError(f"no task list {name!r}: give a file, or one that `fewshot list tasks` names{near}")
    data, hints = read_bounded(path, _LARGEST), typing.get_type_hints(TaskList)
    try:
        values = json.loads(data.decode())
        if typed.wrong(values, hints):
            raise TypeError
        tasks = TaskList(**values)
    except (ValueError, TypeError, RecursionError):
        wanted = ", ".join(name for name in hints if name != "query_alpha")
        raise UserError(f"{path} is not a task list: it must be a JSON object with {wanted}") from None
    try:
        _ = tasks.protocol  # which checks the numbers
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if tasks.episodes < 2:
        raise UserError(f"{path}: {tasks.episodes} episodes; an interval needs at least 2")
    if tasks.episodes > MOST_EPISODES:
        raise UserError(f"{path}: more than {MOST_EPISODES:,} episodes, the most in one evaluation")
    return tasks


def names() -> list[str]:
    """The lists that come with the project."""
    return sorted(path.stem for path in LISTS.glob("*.json"))


def find(dataset: str, split: str, protocol: Protocol) -> TaskList | None:
    """The list for a data set's split under a protocol, if one comes with the project."""
    name = task_name(dataset, split, protocol)
    return read(name) if name in names() else None


def standard_tasks(dataset: Dataset, split: str, protocol: Protocol, episodes: int) -> Tasks:
    """The standard tasks under a protocol: those of the frozen list, verified; without a list, those of seed 0.

    Raises UserError if this data set does not give the list's tasks, or is too small for them.
    """
    if frozen := find(dataset.name, split, protocol):
        return frozen.tasks(dataset, episodes)
    return Tasks(EpisodeSampler(dataset[split], protocol, SEED), episodes)


def pixel_warning(dataset: Dataset, tasks: list[Tasks]) -> str | None:
    """A warning if the pixels are not those of the lists' reference copy; else None."""
    for each in tasks:
        if each.frozen and each.frozen.fingerprint and not dataset.is_known_as(each.frozen.fingerprint):
            return (
                f"the pixels of this {dataset.name} are not the reference copy's (fingerprint"
                f" {dataset.fingerprint[:12]}, not {each.frozen.fingerprint[:12]}): the tasks are the same, accuracies"
                " may differ slightly"
            )
    return None
