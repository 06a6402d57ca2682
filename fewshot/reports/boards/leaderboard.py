"""The leaderboard: one row for each configuration and what it was tested on, over its training seeds.

There are two kinds of results: few-shot tasks (of_tasks.py, the class FewShot) and classified images (of_images.py,
Images). Each has its own tables, and they are never ranked together. Those files say which columns a row has, where
their values come from, how rows are ranked and how they are shown (`Kind`). All else is common.

**Seeds.** Runs that agree in everything but the seed are one row: in test tasks or images, pixels, components,
configuration, precision, training images and code. Its accuracy and train_seconds are means over the seeds. The
interval of one seed is the kind's own, of this network. That of n seeds is Student's t,
t(0.975, n - 1) * std / sqrt(n): of what training again gives on average, on these tasks. Recipes, devices, commits
and versions that differ are listed, joined by `; `.

Of several runs with the same configuration and seed, only one counts; likewise of several lists of tasks that a run
was tested on (standing.py).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.intervals import training_anew
from fewshot.evaluation.overlap import in_words
from fewshot.identity import digest, experiment, pixels
from fewshot.runs import Run

RANKED = ("rank", "tasks", "rank_by")  # columns that a row gets when it is ranked
LISTED = ("recipe", "device", "commit", "python", "torch", "numpy")  # each value once, joined by "; "
_MAY_BE_NONE = (*LISTED, "top5")  # among five classes or fewer, the class is always among the first five
VERSION = "2"  # of the CSV
PAIRED, BY_INTERVALS = "paired differences", "ci95"  # what decides whether rows share a rank
RANK = "A row's rank is 1 + the number of rows of its table that are established better."
RANKING = {
    PAIRED: "{test} (Holm over all pairs); a row of several seeds by the two intervals, too",
    BY_INTERVALS: "the two intervals, taken as independent",
}
Columns: TypeAlias = "Mapping[str, str] | Row"
SEEN = "trained on what is tested"
_OF_THE_TESTED = " of what is tested)"  # after the name of the data set that was trained on
SEEDS_METHOD = "t(0.975, n - 1) * std / sqrt(n) over n training seeds: training anew"


def experiment_of(run: Run) -> dict[str, Any]:
    """What identifies the experiment of a run, in JSON types: runs that agree in it differ in seed and code at most.

    What `identity.experiment` says about the configuration, the precision that was used, the fingerprint of the
    training images, the number of processes if it is not one, and the digest of the weights that training began with,
    if they were another run's, or came from a file or a collection. Raises UserError if the run folder is damaged.
    """
    settled = run.resolved
    facts = experiment(run.config) | {
        "precision": run.environment.get("precision"), "trained on": pixels(settled),
    }  # fmt: skip
    if run.processes != "1":  # batch statistics are those of a process's share
        facts["processes"] = run.processes
    if "weights" in settled:
        facts["weights"] = settled["weights"].get("sha256")
    return facts | ({"init": settled["init"]["weights"]} if "init" in settled else {})


def code_behind(run: Run, rows: Iterable[dict[str, Any]]) -> str:
    """Digest of the code that trained a run, and of the user's code that solved the tasks of these rows, if any did."""
    return "+".join([run.code_digest, *sorted({row["solver_code"] for row in rows if "solver_code" in row})])


def check_numbers(run: Run, facts: Mapping[str, Any], columns: Iterable[str], numbers: Iterable[str]) -> None:
    """UserError unless `facts`, of a result of the run, have all `columns`, and finite numbers in `numbers`."""
    missing = [name for name in columns if name not in facts or (facts[name] is None and name not in _MAY_BE_NONE)]
    missing += [column for column in numbers if not isinstance(facts.get(column), (int, float))]
    if missing:
        raise UserError(f"{run.result_path} is not a result of ours (it lacks {missing[0]}); move it out of --runs")
    try:
        datetime.datetime.fromisoformat(facts["started"])
    except (ValueError, TypeError):
        raise UserError(f"{run.folder / 'environment.json'} is damaged: started is no time") from None
    if not all(math.isfinite(facts[column]) for column in numbers):
        raise UserError(f"{run.result_path} holds numbers that are not finite: the training diverged")


def trained_on(run: Run, scored: Mapping[str, Any]) -> str:
    """The data set that a run was trained on, and how much of what its result `scored` tests was seen in training."""
    seen = scored.get("seen_in_training")
    return run.config.dataset + (f" ({in_words(seen)}{_OF_THE_TESTED}" if seen else "")


def trained_on_the_tested(row: Columns) -> bool:
    """Whether training saw some of the classes or images that a row is about: then it is no measure of new ones."""
    return row["trained_on"].endswith(_OF_THE_TESTED)


@dataclass(frozen=True)
class Former:
    """Version 1 of a kind's CSV."""

    columns: tuple[str, ...]
    shared: tuple[str, ...]
    """What its keys are made of."""
    filled: Mapping[str, str]
    """What its rows have in the columns that came later."""


class Kind(ABC):
    """One kind of results: what its rows say, and how they are ranked and shown."""

    columns: tuple[str, ...]
    """Of its CSV, in order."""
    optional: tuple[str, ...] = ()
    """Those of them that are left out of a file if no row has them."""
    shared: tuple[str, ...]
    """What the runs of a row agree in."""
    defaults: Mapping[str, str]
    """Of shared columns. A column with its default is not hashed, so a new column with a default changes no key."""
    own: tuple[str, ...]
    """What each run of a row has for itself, including LISTED, `seed`, `run`, `started` and `train_seconds`."""
    evidence: tuple[str, ...]
    """Shared columns that, with the seed, the start and `proof`, identify a run in any version."""
    proof: str
    """The column of `own` that is measured."""
    former: Former | None = None
    """Version 1 of its CSV, if there was one."""
    task_list: tuple[str, ...] = ()
    """Shared columns that name the list of tasks used for a question, its length first; () if there is only one."""
    numbers: tuple[str, ...]
    """Headings of figures, which are aligned right."""
    terminal: tuple[str, ...]
    """Headings that fit 80 columns: the rank, what tells rows apart, the number of seeds, the accuracy."""
    about: str
    """What the figures are, for the reader of the tables."""

    @property
    def mark(self) -> str:
        """How the header of its CSV begins, in every version."""
        return ",".join(self.columns[:9]) + ","

    @abstractmethod
    def scores(self, run: Run, name: str) -> list[Score]:
        """One for each question and each list of tasks that the run, called `name`, was tested on.

        Raises UserError if a column cannot be filled, a file is damaged, or a figure is not what the record gives.
        """

    @abstractmethod
    def figures(self, own: Sequence[Mapping[str, Any]]) -> tuple[float, float, dict[str, str]]:
        """For the runs of a row: mean accuracy and half-width of its interval, fractions of 1, and their columns."""

    @abstractmethod
    def at_chance(self, row: Row) -> bool:
        """Whether one of its runs is no better than guessing."""

    @abstractmethod
    def question(self, row: Columns) -> tuple:
        """What was asked: rows of different questions are never compared."""

    @abstractmethod
    def board(self, row: Columns) -> tuple:
        """The question, and the tasks or images and pixels: rows of different boards are never ranked together."""

    @abstractmethod
    def differs(self, row: Row, most: Row) -> str:
        """`common`, or how the board of `row` differs from that of most rows of its question: `other pixels`."""

    @abstractmethod
    def apart(self, rows: Sequence[Row]) -> np.ndarray:
        """(k, k) bool: which rows of a board a paired test tells apart, by the records that are at hand."""

    @abstractmethod
    def title(self, row: Row) -> str:
        """The heading of a board."""

    @abstractmethod
    def cells(self, row: Row, equal: bool) -> dict[str, str]:
        """A line of a board by heading. `equal`: whether another row shares its rank."""

    @abstractmethod
    def how(self, rows: Sequence[Row]) -> str:
        """How the figures of a board came about."""


@dataclass(frozen=True)
class Score:
    """One run and one thing that it was tested on: the kind's `shared` columns as strings, `own` values as in JSON."""

    kind: Kind
    key: str
    shared: dict[str, str]
    own: dict[str, Any]
    version: str = VERSION
    """Of the CSV format that made the key."""
    record: tuple[Path, dict[str, Any]] | None = None
    """Run folder and result row, if the record of it is at hand."""

    @classmethod
    def of(cls, kind: Kind, shared: dict[str, str], facts: dict[str, Any], own: dict[str, Any], **more: Any) -> Score:
        """A score whose key is made from what it shares with other seeds, and from the facts of its experiment."""
        return cls(kind, f"{columns_digest(kind, shared)}-{digest(facts)}", shared, own, **more)

    @property
    def experiment(self) -> str:
        """Digest of the facts of its experiment: the second half of the key."""
        return self.key.partition("-")[2]

    @property
    def training(self) -> tuple:
        """Identifies its training, wherever copies of the run lie."""
        return self.experiment, self.own["seed"], self.own["started"]


@dataclass(frozen=True)
class Row:
    """The scores of one key, in the order of their seeds, and the columns that they make.

    `accuracy` and `ci95` are fractions of 1.
    """

    scores: tuple[Score, ...]
    accuracy: float
    ci95: float
    columns: dict[str, str]

    @classmethod
    def of(cls, scores: Iterable[Score]) -> Row:
        """The row of scores that share a key and differ in the seed."""
        scores = tuple(sorted(scores, key=lambda score: score.own["seed"]))
        assert len({score.own["seed"] for score in scores}) == len(scores), "the same seed again is no new evidence"
        first, own = scores[0], [score.own for score in scores]
        accuracy, ci95, figures = first.kind.figures(own)
        columns = first.shared | {
            name: "; ".join(dict.fromkeys(str(run[name]) for run in own if run[name] is not None)) for name in LISTED
        }
        columns |= figures | {
            "seeds": str(len(own)), "seed": " ".join(str(run["seed"]) for run in own),
            "train_seconds": f"{statistics.fmean(run['train_seconds'] for run in own):.1f}",
            "run": braced([run["run"] for run in own]), "key": first.key, "csv_version": first.version,
            "each_run": json.dumps(own, ensure_ascii=False, separators=(",", ":")),
        }  # fmt: skip
        return cls(scores, accuracy, ci95, columns)

    def __getitem__(self, column: str) -> str:
        return self.columns[column]

    @property
    def kind(self) -> Kind:
        return self.scores[0].kind

    @property
    def at_chance(self) -> bool:
        """Whether one of its runs is no better than guessing."""
        return self.kind.at_chance(self)

    def ranked(self, rank: int, tasks: str, rank_by: str) -> Row:
        """The same row with its RANKED columns."""
        place = {"rank": str(rank), "tasks": tasks, "rank_by": rank_by}
        return dataclasses.replace(self, columns=self.columns | place)


def columns_of(kind: Kind, rows: Iterable[Row]) -> list[str]:
    """The columns of a file with these rows of a kind: all but the optional ones that are empty in every row."""
    there = {column for row in rows for column in kind.optional if row[column]}
    return [column for column in kind.columns if column not in kind.optional or column in there]


def of_kind(kind: Kind, items: Iterable[Any]) -> list[Any]:
    """Of scores or rows, those of a kind."""
    return [item for item in items if item.kind is kind]


def mean_over_seeds(accuracies: Sequence[float]) -> tuple[float, float]:
    """Mean over two seeds or more, and the half-width of its 95% interval: SEEDS_METHOD."""
    found = training_anew(np.array(accuracies))
    return found.estimate, found.half_width


def braced(names: Sequence[str]) -> str:
    """`runs/a-seed{0,1,2}`: the names in their order, their common start and end written once. Numbers stay whole."""
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names).rstrip("0123456789")
    rest = [name[len(start) :] for name in names]
    end = os.path.commonprefix([name[::-1] for name in rest])[::-1].lstrip("0123456789")
    return start + "{" + ",".join(name[: len(name) - len(end)] for name in rest) + "}" + end


def columns_digest(kind: Kind, shared: dict[str, str]) -> str:
    """The first half of a key."""
    return digest({column: value for column, value in shared.items() if value != kind.defaults.get(column)})


def aggregate(scores: Iterable[Score], over_seeds: bool = True) -> list[Row]:
    """One row for each key, or for each score if `over_seeds` is False."""
    if not over_seeds:
        return [Row.of([score]) for score in scores]
    ordered = sorted(scores, key=lambda score: score.key)
    return [Row.of(same) for _, same in groupby(ordered, key=lambda score: score.key)]
