"""The leaderboard: one row for each configuration and task, over its training seeds, ranked among rows of those tasks.

The columns, all of them strings, in the order of the CSV:

    rank                within the rows of the same tasks; 1 is the most accurate, equals share it (reports/ranking.py)
    dataset, ways, shots                    what was tested (test split)
    backbone, head, regularizer             components as written on the command line
    accuracy, ci95      per cent, two decimals; half-width of the interval named in ci_method
    episodes            test episodes             seeds           number of training seeds behind the row
    train_seconds       wall time of a training   device          where it was trained
    parameters          of the embedding network  recipe, commit  how it was made
    fingerprint         of the test set's pixels (`identity.pixels`)    episodes_digest  of the test episodes
    run                 folder, relative to --runs; several in the shell's notation, runs/seed{0,1}
    queries, ci_method, seed, steps, precision, python, torch, numpy, membership    more provenance
    trained_on, train_ways, train_shots     data set and episodes of the training; behind the data set, in brackets,
                        how many of the classes and images that are tested were trained on, where there are any
    tasks               `common`, or how the row's tasks differ from those of most rows of that data set, ways and
                        shots: `other queries`, `other episodes`, `other pixels`. Their ranks begin at 1 again
    rank_by             what decided whether rows share a rank: `paired differences`, or `ci95`
    key                 two digests of what the row's runs agree in: one of its columns, one of the rest
    each_run            JSON: what every run of the row adds to it, so that rows can be merged later
    setting             inductive, or transductive: the head saw all queries of a task at once. Ranked separately
    transform           of the embeddings, before the head; none where there is none
    code                short digest of the source files that trained; empty where the run recorded none
    csv_version         the version of this file's format that made the row (reports/board_csv.py)
    query_alpha         Dirichlet's concentration, where numbers of queries are drawn from it (then `queries` is their
                        mean); empty for balanced tasks. Ranked separately. Only in files that have such a row

**Seeds.** Runs that agree in everything but the seed are one row: the same test episodes and pixels, components,
configuration, precision, training images and code. Its accuracy is the mean over the seeds, and so is train_seconds.
The interval of one seed is the field's: of this network on this test set. That of n seeds is Student's t,
t(0.975, n - 1) * std / sqrt(n): of what training again gives on average, on this test set. Neither speaks of new
images or classes. Recipes, devices, commits and versions that differ are listed, joined by `; `.

**Repeated runs.** Of several runs with one configuration and one seed the newest counts, and the command names the
others: the same seed again is no new evidence.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from fewshot.evaluation.statistics import at_chance
from fewshot.identity import digest, experiment, pixels
from fewshot.runs import Run

COLUMNS = (
    "rank", "dataset", "ways", "shots", "backbone", "head", "regularizer", "accuracy", "ci95", "episodes", "seeds",
    "train_seconds", "device", "parameters", "recipe", "commit", "fingerprint", "episodes_digest", "run",
    "queries", "ci_method", "seed", "steps", "precision", "python", "torch", "numpy", "membership",
    "trained_on", "train_ways", "train_shots", "tasks", "rank_by", "key", "each_run",
    "setting", "transform", "code", "csv_version", "query_alpha",
)  # fmt: skip
OPTIONAL = ("query_alpha",)  # left out of a file in which no row has it
RANKED = ("rank", "tasks", "rank_by")  # what a row has by standing among others
SHARED = (
    "dataset", "ways", "shots", "queries", "episodes", "episodes_digest", "fingerprint", "membership", "backbone",
    "head", "regularizer", "steps", "parameters", "precision", "trained_on", "train_ways", "train_shots",
    "setting", "transform", "code", "query_alpha",
)  # fmt: skip
DEFAULTS = {
    "setting": "inductive",
    "transform": "none",
    "code": "",
    "query_alpha": "",
}  # a shared column with this value is not hashed
OWN = (
    "seed", "run", "started", "accuracy", "ci95", "ci_method", "train_seconds", "recipe", "device", "commit", "python",
    "torch", "numpy",
)  # fmt: skip
LISTED = ("recipe", "device", "commit", "python", "torch", "numpy")  # each value once, joined by "; "
VERSION = "2"  # of the CSV
SEEDS_METHOD = "t(0.975, n - 1) * std / sqrt(n) over n training seeds: training anew"


def experiment_of(run: Run) -> dict[str, Any]:
    """What identifies the experiment of a run, in JSON types: runs that agree in it differ in seed and code at most.

    What `identity.experiment` says of the configuration, the precision that it came to, the fingerprint of the training
    images, and the digest of the weights that training began with, if they were another run's, or came from a file or a
    collection. UserError where the run folder is damaged.
    """
    settled = run.resolved
    facts = experiment(run.config) | {
        "precision": run.environment.get("precision"), "trained on": pixels(settled),
    }  # fmt: skip
    if "weights" in settled:
        facts["weights"] = settled["weights"].get("sha256")
    return facts | ({"init": settled["init"]["weights"]} if "init" in settled else {})


def code_behind(run: Run, rows: Iterable[dict[str, Any]]) -> str:
    """Digest of the code that trained a run, and of the user's own that solved the tasks of these rows, if any did."""
    return "+".join([run.code_digest, *sorted({row["solver_code"] for row in rows if "solver_code" in row})])


@dataclass(frozen=True)
class Score:
    """One run under one protocol: SHARED columns as strings, OWN values as JSON has them."""

    key: str
    shared: dict[str, str]
    own: dict[str, Any]
    version: str = VERSION
    """Of the CSV's format that made the key."""
    episodes: tuple[Path, dict[str, Any]] | None = None
    """Run folder and result row, where the accuracies of its episodes are at hand."""

    @classmethod
    def of(cls, shared: dict[str, str], facts: dict[str, Any], own: dict[str, Any], **more: Any) -> Score:
        """A score whose key is made from what it shares with other seeds, and from the facts of its experiment."""
        return cls(f"{columns_digest(shared)}-{digest(facts)}", shared, own, **more)


@dataclass(frozen=True)
class Row:
    """The scores of one key, in the order of their seeds, and the COLUMNS that they make.

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
        first, own = scores[0], [score.own for score in scores]
        accuracy, ci95, method = _interval(own)
        columns = first.shared | {
            name: "; ".join(dict.fromkeys(str(run[name]) for run in own if run[name] is not None)) for name in LISTED
        }
        columns |= {
            "accuracy": f"{100 * accuracy:.2f}", "ci95": f"{100 * ci95:.2f}", "ci_method": method,
            "seeds": str(len(own)), "seed": " ".join(str(run["seed"]) for run in own),
            "train_seconds": f"{statistics.fmean(run['train_seconds'] for run in own):.1f}",
            "run": braced([run["run"] for run in own]), "key": first.key, "csv_version": first.version,
            "each_run": json.dumps(own, ensure_ascii=False, separators=(",", ":")),
        }  # fmt: skip
        return cls(scores, accuracy, ci95, columns)

    def __getitem__(self, column: str) -> str:
        return self.columns[column]

    @property
    def at_chance(self) -> bool:
        """Whether one of its runs is no better than guessing: its interval reaches down to one in so many ways."""
        ways = int(self["ways"])
        return any(at_chance(score.own["accuracy"], score.own["ci95"], ways) for score in self.scores)

    def ranked(self, rank: int, tasks: str, rank_by: str) -> Row:
        """The same row with its RANKED columns."""
        place = {"rank": str(rank), "tasks": tasks, "rank_by": rank_by}
        return dataclasses.replace(self, columns=self.columns | place)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The columns of a file with these rows: COLUMNS, without the optional ones that are empty in all of them."""
    there = {column for row in rows for column in OPTIONAL if row[column]}
    return [column for column in COLUMNS if column not in OPTIONAL or column in there]


def _interval(own: Sequence[dict[str, Any]]) -> tuple[float, float, str]:
    """Mean accuracy over the runs, the half-width of its 95% interval, and the formula of that."""
    accuracies = [run["accuracy"] for run in own]
    if len(own) == 1:
        return accuracies[0], own[0]["ci95"], own[0]["ci_method"]
    deviation = statistics.stdev(accuracies)
    half = float(stdtrit(len(own) - 1, 0.975)) * deviation / math.sqrt(len(own))
    return statistics.fmean(accuracies), half, SEEDS_METHOD


def braced(names: Sequence[str]) -> str:
    """`runs/a-seed{0,1,2}`: the names in their order, their common start and end written once. Numbers stay whole."""
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names).rstrip("0123456789")
    rest = [name[len(start) :] for name in names]
    end = os.path.commonprefix([name[::-1] for name in rest])[::-1].lstrip("0123456789")
    return start + "{" + ",".join(name[: len(name) - len(end)] for name in rest) + "}" + end


def columns_digest(shared: dict[str, str]) -> str:
    """The first half of a key. DEFAULTS are not hashed, so that a new column with a default changes no key."""
    return digest({column: value for column, value in shared.items() if value != DEFAULTS.get(column)})


def merge(scores: Iterable[Score]) -> list[Score]:
    """One score for each run and protocol, the later for the earlier: a copy of a run is the same run.

    A score of an older version is left out where the same run is there in this version, too.
    """
    unique = {(score.key, score.own["seed"], score.own["started"]): score for score in scores}.values()
    renewed = {_evidence(score) for score in unique if score.version == VERSION}
    return [score for score in unique if score.version == VERSION or _evidence(score) not in renewed]


_EVIDENCE = (
    "dataset", "ways", "shots", "queries", "episodes_digest", "fingerprint", "backbone", "head", "regularizer",
)  # fmt: skip


def _evidence(score: Score) -> tuple:
    """What no two runs share, in any version's columns."""
    shared = [score.shared[column] for column in _EVIDENCE]
    return *shared, *(score.own[column] for column in ("seed", "started", "accuracy"))


def different_code(scores: Iterable[Score]) -> list[list[Score]]:
    """Lists of scores that differ in nothing but the seed and the code that trained them."""
    groups: dict[tuple, list[Score]] = {}
    for score in scores:
        without = columns_digest(score.shared | {"code": ""})
        groups.setdefault((score.version, without, score.key.split("-")[1]), []).append(score)
    return [group for group in groups.values() if len({score.shared["code"] for score in group}) > 1]


def newest(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """The scores that count, and those that a newer run with the same configuration and seed replaces."""
    last: dict[tuple, Score] = {}
    left_out: list[Score] = []
    for score in sorted(scores, key=lambda score: score.own["started"]):
        one = score.key, score.own["seed"]
        left_out += [last[one]] if one in last else []
        last[one] = score
    return list(last.values()), left_out


def aggregate(scores: Iterable[Score], over_seeds: bool = True) -> list[Row]:
    """One row for each key, or for each score where `over_seeds` is False."""
    if not over_seeds:
        return [Row.of([score]) for score in scores]
    ordered = sorted(scores, key=lambda score: score.key)
    return [Row.of(same) for _, same in groupby(ordered, key=lambda score: score.key)]
