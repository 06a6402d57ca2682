"""The leaderboard: one row a configuration and task, over its training seeds, ranked among those of the same tasks.

Its columns, all of them strings, in the order of the CSV:

    rank                within the rows of the same tasks; 1 is the most accurate, equals share it (reports/ranking.py)
    dataset, ways, shots                    what was tested (test split)
    backbone, head, regularizer             components as written on the command line
    accuracy, ci95      per cent, two decimals; half-width of the interval named in ci_method
    episodes            test episodes             seeds           training seeds behind the row
    train_seconds       wall time of a training   device          where it trained
    parameters          of the embedding network  recipe, commit  how it was made
    fingerprint         of the test set's pixels  episodes_digest of the test episodes
    run                 folder, relative to --runs; several as the shell writes them, runs/seed{0,1}
    queries, ci_method, seed, steps, precision, python, torch, numpy, membership    more provenance
    trained_on, train_ways, train_shots     data set and episodes of the training
    tasks               `common`, or what sets the row's tasks apart from most others' of that data set, ways and
                        shots: `other queries`, `other episodes`, `other pixels`. Their ranks begin at 1 again
    rank_by             what decided whether rows share a rank: `paired differences`, or `ci95`
    key                 of all that the row's runs agree in: a digest of its columns, and one of what else was set
    each_run            JSON: what every run of the row adds to it, so that rows can be merged later

**Seeds.** Runs that agree in everything but the seed are one row: the same test episodes and pixels, components,
recipe and configuration, precision and training images. Its accuracy is the mean over the seeds, and so is
train_seconds. One seed's interval is the field's: of this network on this test set. That of n seeds is Student's t,
t(0.975, n - 1) * std / sqrt(n): of what training anew gives on average, on this test set. Neither speaks of new
images or classes. Devices, commits and versions that differ are listed, joined by `; `.

**Repeated runs.** Of several runs with one configuration and one seed the newest counts, the others are left out
(the command names them): the same seed again is not new evidence.
"""

from __future__ import annotations

import dataclasses
import hashlib
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

from fewshot.core.errors import UserError
from fewshot.runs import Run

COLUMNS = (
    "rank", "dataset", "ways", "shots", "backbone", "head", "regularizer", "accuracy", "ci95", "episodes", "seeds",
    "train_seconds", "device", "parameters", "recipe", "commit", "fingerprint", "episodes_digest", "run",
    "queries", "ci_method", "seed", "steps", "precision", "python", "torch", "numpy", "membership",
    "trained_on", "train_ways", "train_shots", "tasks", "rank_by", "key", "each_run",
)  # fmt: skip
RANKED = ("rank", "tasks", "rank_by")  # what a row has by standing among others
SHARED = (
    "dataset", "ways", "shots", "queries", "episodes", "episodes_digest", "fingerprint", "membership", "backbone",
    "head", "regularizer", "recipe", "steps", "parameters", "precision", "trained_on", "train_ways", "train_shots",
)  # fmt: skip
OWN = (
    "seed", "run", "started", "accuracy", "ci95", "ci_method", "train_seconds", "device", "commit", "python", "torch",
    "numpy",
)  # fmt: skip
_NUMBERS = ("seed", "accuracy", "ci95", "train_seconds")
SEEDS_METHOD = "t(0.975, n - 1) * std / sqrt(n) over n training seeds: training anew"

# Fields of the configuration that say where and how a run was done, not what was trained.
NOT_THE_EXPERIMENT = (
    "seed", "data_root", "device", "precision", "threads", "compile", "deterministic", "checkpoint_seconds",
    "test_episodes", "test_shots",
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One run under one protocol: SHARED columns as strings, OWN values as JSON has them."""

    key: str
    shared: dict[str, str]
    own: dict[str, Any]
    episodes: tuple[Path, dict[str, Any]] | None = None
    """Run folder and result row, where the accuracies of its episodes are at hand."""


@dataclass(frozen=True)
class Row:
    """Scores of one key, by seed, and the COLUMNS that they make; accuracy and ci95 are fractions of 1."""

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
            name: "; ".join(dict.fromkeys(str(run[name]) for run in own if run[name] is not None))
            for name in ("device", "commit", "python", "torch", "numpy")
        }
        columns |= {
            "accuracy": f"{100 * accuracy:.2f}", "ci95": f"{100 * ci95:.2f}", "ci_method": method,
            "seeds": str(len(own)), "seed": " ".join(str(run["seed"]) for run in own),
            "train_seconds": f"{statistics.fmean(run['train_seconds'] for run in own):.1f}",
            "run": braced([run["run"] for run in own]), "key": first.key,
            "each_run": json.dumps(own, ensure_ascii=False, separators=(",", ":")),
        }  # fmt: skip
        return cls(scores, accuracy, ci95, columns)

    def __getitem__(self, column: str) -> str:
        return self.columns[column]

    def ranked(self, rank: int, tasks: str, rank_by: str) -> Row:
        place = {"rank": str(rank), "tasks": tasks, "rank_by": rank_by}
        return dataclasses.replace(self, columns=self.columns | place)


def _interval(own: Sequence[dict[str, Any]]) -> tuple[float, float, str]:
    """Mean accuracy over the runs, the half-width of its 95% interval, and the formula of that."""
    accuracies = [run["accuracy"] for run in own]
    if len(own) == 1:
        return accuracies[0], own[0]["ci95"], own[0]["ci_method"]
    deviation = statistics.stdev(accuracies)
    half = float(stdtrit(len(own) - 1, 0.975)) * deviation / math.sqrt(len(own))
    return statistics.fmean(accuracies), half, SEEDS_METHOD


def braced(names: Sequence[str]) -> str:
    """`runs/a-seed{0,1,2}`: the names in their order, what they share written once. A number is never cut in two."""
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names).rstrip("0123456789")
    rest = [name[len(start) :] for name in names]
    end = os.path.commonprefix([name[::-1] for name in rest])[::-1].lstrip("0123456789")
    return start + "{" + ",".join(name[: len(name) - len(end)] for name in rest) + "}" + end


def gather(folder: Path) -> list[Score]:
    """Every run below `folder` with results on test images, a score a protocol.

    UserError where there is none, or one is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of your runs with --runs")
    found = sorted(path.parent for path in folder.rglob("result.json"))
    scores = [score for place in found for score in _scores(Run.open(place), place.relative_to(folder).as_posix())]
    if not scores:
        raise UserError(f"no finished run below {folder}: train one first, or give another --runs")
    return scores


def unfinished(folder: Path) -> list[str]:
    """Run folders below `folder` that have no results yet: what `gather` leaves out."""
    begun = sorted(path.parent for path in folder.rglob("config.json"))
    return [place.relative_to(folder).as_posix() for place in begun if not (place / "result.json").is_file()]


def _scores(run: Run, name: str) -> list[Score]:
    """One score a protocol of the run. UserError where a column cannot be filled."""
    environment, result, config = run.environment, run.result, run.config
    experiment = dataclasses.asdict(config)
    for field in NOT_THE_EXPERIMENT:
        del experiment[field]
    trained = {"run": name, "train_ways": config.ways, "train_shots": config.shots}
    scores = []
    for scored in result.get("results", [{}]):
        if scored.get("split", "test") != "test":  # validation images chose the weights
            continue
        facts = result.get("run", {}) | scored | environment.get("versions", {}) | environment | trained
        missing = [column for column in (*SHARED, *OWN) if column not in facts]
        missing += [column for column in _NUMBERS if not isinstance(facts.get(column), (int, float))]
        if missing:
            raise UserError(f"{run.result_path} is not a result of ours (it lacks {missing[0]}); move it out of --runs")
        shared = {column: str(facts[column]) for column in SHARED}
        images = result["run"].get("train_fingerprint")
        at_hand = (run.folder / str(scored.get("episodes_file"))).is_file()
        scores.append(
            Score(
                key=f"{digest(shared)}-{digest([experiment, images])}",
                shared=shared,
                own={column: facts[column] for column in OWN},
                episodes=(run.folder, scored) if at_hand else None,
            )
        )
    return scores


def digest(value: Any) -> str:
    """Eight hex digits that tell JSON values apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def merge(scores: Iterable[Score]) -> list[Score]:
    """One score a run and protocol, the later for the earlier: a copy of a run is the same run."""
    return list({(score.key, score.own["seed"], score.own["started"]): score for score in scores}.values())


def newest(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """Those that count, and those whose configuration and seed a newer run has, too."""
    last, left_out = {}, []
    for score in sorted(scores, key=lambda score: score.own["started"]):
        one = score.key, score.own["seed"]
        left_out += [last[one]] if one in last else []
        last[one] = score
    return list(last.values()), left_out


def aggregate(scores: Iterable[Score], over_seeds: bool = True) -> list[Row]:
    """A row a key; or a row a score."""
    if not over_seeds:
        return [Row.of([score]) for score in scores]
    ordered = sorted(scores, key=lambda score: score.key)
    return [Row.of(same) for _, same in groupby(ordered, key=lambda score: score.key)]
