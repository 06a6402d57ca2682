"""Which runs can be compared, and what can and cannot be concluded from them, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import QUESTIONS, Answers, Scores, answers, differences, needs
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.power import Need
from fewshot.evaluation.records import Record, read
from fewshot.evaluation.statistics import distinguishable, ranks
from fewshot.identity import pixels
from fewshot.reports.conclusions import SIGNIFICANT, conclusions, what_it_takes
from fewshot.reports.leaderboard import DEFAULTS, braced, code_behind, experiment_of
from fewshot.reports.tables import percent, queries_a_class, task_name
from fewshot.runs import FOREIGN, Run

_KNOWN = ("dataset", "regime", "backbone", "head", "reg", "transform", "init")  # of a network trained elsewhere
_PROTOCOL = ("dataset", "split", "ways", "shots", "queries", "query_alpha", "episodes_seed", "setting")
_NEEDED = {*_PROTOCOL, "head", "episodes", "episodes_file", "episodes_digest", "fingerprint"} - DEFAULTS.keys()


@dataclass(frozen=True)
class Result:
    """One run under one protocol: its row of result.json, and its accuracy in every task."""

    row: dict[str, Any]
    record: Record


@dataclass(frozen=True)
class Finished:
    """All of a run that a comparison needs.

    `results` are those of the run's own head: of each protocol those on different tasks or pixels, the longest first.
    """

    folder: str
    config: TrainConfig
    experiment: dict[str, Any]
    code: str
    results: Mapping[tuple, Sequence[Result]]

    @classmethod
    def load(cls, folder: str) -> Finished:
        """UserError where the run is unfinished or damaged."""
        run = Run.open(folder)
        config = run.config
        rows = run.rows if run.result else []  # which must be there
        if not all(row.keys() >= _NEEDED for row in rows):
            raise UserError(f"{run.result_path} is not a result of ours: evaluate {run.folder} again")
        results: dict[tuple, list[Result]] = {}
        for row in sorted((DEFAULTS | row for row in rows), key=lambda row: -row["episodes"]):
            if (row["head"], row["transform"]) == (config.head, config.transform):
                results.setdefault(tuple(row[key] for key in _PROTOCOL), []).append(Result(row, read(run, row)))
        compared = [result.row for same in results.values() for result in same]
        return cls(str(folder), config, experiment_of(run), code_behind(run, compared), results)

    @property
    def identity(self) -> str:
        """Equal for runs that differ in the seed alone."""
        return json.dumps([self.experiment, self.code], sort_keys=True)


@dataclass(frozen=True)
class Entry:
    """One configuration: a letter, its runs by training seed, and the facts in which it differs from other entries."""

    name: str
    runs: dict[int, Finished]
    differs_in: str


def load(folders: Iterable[str]) -> tuple[list[Finished], list[str]]:
    """The runs that can be read, and for each of the others a line that says why it cannot.

    UserError where fewer than two configurations can be read.
    """
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(Finished.load(folder))
        except UserError as error:
            problems.append(str(error))
    if problems and len({run.identity for run in runs}) < 2:
        raise UserError("; ".join(problems))
    return runs, problems


def entries(runs: Sequence[Finished]) -> list[Entry]:
    """Runs that differ in nothing but the seed are one entry. UserError where there are fewer than two entries."""
    groups: dict[str, dict[int, Finished]] = {}
    for each in runs:
        same = groups.setdefault(each.identity, {})
        seed = each.config.seed
        if seed in same:
            raise UserError(f"{same[seed].folder} and {each.folder} are one training, seed included: give only one")
        same[seed] = each
    if len(groups) < 2:
        raise UserError("nothing to compare: give runs of two configurations that differ in more than the seed")
    if len(groups) > len(ascii_uppercase):
        raise UserError(f"{len(groups)} configurations: give at most {len(ascii_uppercase)} at once")
    firsts = [next(iter(group.values())) for group in groups.values()]
    fields = dict.fromkeys(name for run in firsts for name in run.experiment)
    telling = [name for name in fields if len({str(_fact(run, name)) for run in firsts}) > 1]
    return [
        Entry(name, dict(sorted(group.items())), _differs_in(run, telling, firsts))
        for name, run, group in zip(ascii_uppercase, firsts, groups.values(), strict=False)
    ]


def _differs_in(run: Finished, fields: Iterable[str], others: Iterable[Finished]) -> str:
    """`reg=none, lr=0.1`; and the code, where another entry is the same experiment."""
    known = _KNOWN if run.config.regime == FOREIGN else fields
    facts = [f"{name}={_fact(run, name)}" for name in fields if name in known]
    if sum(other.experiment == run.experiment for other in others) > 1:
        facts.append(f"code={run.code or 'unknown'}")
    return ", ".join(facts)


def _fact(run: Finished, name: str) -> Any:
    """A field of the experiment; one that it does not name has the configuration's value."""
    value = run.experiment.get(name, getattr(run.config, name, ""))
    return "none" if value == "" else value


def same_but_for_code(compared: Sequence[Entry]) -> list[tuple[str, str]]:
    """Names of the entries, in pairs, that differ in nothing but the code that trained them."""
    first = {each.name: next(iter(each.runs.values())) for each in compared}
    return [(a, b) for a, b in combinations(first, 2) if first[a].experiment == first[b].experiment]


def shared_protocols(compared: Sequence[Entry]) -> list[list[dict[int, Result]]]:
    """For each protocol that all runs were scored under, each entry's results by seed.

    Of several results of a protocol those on the tasks that all have, and of these the longest. UserError where there
    is no common protocol, or where the episodes or the pixels were not the same.
    """
    first, *others = [run for each in compared for run in each.runs.values()]
    for run in others:
        if not first.results.keys() & run.results.keys():
            raise UserError(
                f"{first.folder} and {run.folder} share no tasks: they were scored under"
                f" {_named(first.results)} and {_named(run.results)}; evaluate both alike"
            )
    shared = [key for key in first.results if all(key in run.results for run in others)]
    if not shared:
        raise UserError("these runs share no tasks: no protocol that all were scored under; evaluate them alike")
    found = []
    for key in shared:
        by_tasks = {run.folder: {_tasks(each): each for each in reversed(run.results[key])} for run in (first, *others)}
        tasks = [_tasks(each) for each in first.results[key]]
        common = [each for each in tasks if all(each in its for its in by_tasks.values())]
        if not common:
            for run in others:
                _check_same(first.folder, first.results[key][0].row, run.folder, run.results[key][0].row)
            raise UserError(f"these runs share no tasks of {_title(first.results[key][0].row)}; evaluate them alike")
        found.append(
            [{seed: by_tasks[run.folder][common[0]] for seed, run in each.runs.items()} for each in compared]
        )
    return found


def _tasks(result: Result) -> tuple[str, str | None]:
    return result.row["episodes_digest"], pixels(result.row)


def _check_same(a: str, row_a: dict[str, Any], b: str, row_b: dict[str, Any]) -> None:
    if row_a["episodes_digest"] != row_b["episodes_digest"]:
        raise UserError(
            f"{a} and {b} share no tasks: their {_title(row_a)} episodes differ"
            f" ({row_a['episodes']:,} and {row_b['episodes']:,} of them); evaluate both on the same data set with the"
            " same --episodes"
        )
    if pixels(row_a) != pixels(row_b):
        raise UserError(
            f"pixels differ: {a} and {b} saw other copies of {row_a['dataset']} (fingerprints"
            f" {row_a['fingerprint'][:12]} and {row_b['fingerprint'][:12]}); evaluate both on one copy"
        )


def _title(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']} {row['split']} {task_name(row)}"


def _named(results: Mapping[tuple, Sequence[Result]]) -> str:
    rows = [same[0].row for same in results.values()]
    return ", ".join(f"{_title(row)} of {row['queries']} queries" for row in rows) or "nothing"


def title_of(row: Mapping[str, Any]) -> str:
    """A protocol in words."""
    return f"{_title(row)}, {queries_a_class(row)}, {row['episodes']:,} episodes"


def print_entries(console: Console, compared: Sequence[Entry]) -> None:
    """The letters and what they stand for. A folder has a line of its own, so that no width breaks its name."""
    for each in compared:
        seeds = " ".join(map(str, each.runs))
        console.print(f"  {each.name}  {each.differs_in}, seed{'s' * (len(each.runs) > 1)} {seeds}")
        console.print(f"     {braced([run.folder for run in each.runs.values()])}")
    console.print()


def print_comparison(
    console: Console, compared: Sequence[Entry], results: Sequence[dict[int, Result]], detect: float | None = None
) -> None:
    """One protocol: the ranked table, then each entry against the most accurate, and what it would take.

    detect: the difference that is to be established, in points; None: the one seen on this test set.
    """
    scores = [Scores.of({seed: result.record for seed, result in by_seed.items()}) for by_seed in results]
    row = next(iter(results[0].values())).row
    episodes = np.stack([each.episodes.accuracies for each in scores])
    placed = ranks(episodes.mean(1), distinguishable(episodes))
    order = sorted(range(len(scores)), key=lambda i: -scores[i].episodes.accuracies.mean())
    table = Table(title=title_of(row), box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("rank", "", *QUESTIONS):
        table.add_column(column, no_wrap=True)
    for i in order:
        own = answers(scores[i]).values()
        cells = ["-" if isinstance(each, str) else percent(each.estimate, each.half_width) for each in own]
        table.add_row(str(placed[i]), compared[i].name, *cells)
    console.print(table)
    pairs = differences([scores[i] for i in order])
    names = [compared[i].name for i in order]
    for place in range(1, len(order)):
        found = pairs[0, place]
        size = size_of(found, detect)
        takes = needs(found, size, SIGNIFICANT / len(pairs)) if size else {}
        takes = images_of_each(takes, row, scores[order[0]])
        lines = [*conclusions(names[0], names[place], found), *what_it_takes(size, takes)]
        console.print("\n".join(lines) + "\n")


def check_points(detect: float | None, named: str) -> None:
    """UserError where it is no difference in points."""
    if detect is not None and not 0 < detect <= 100:
        raise UserError(f"{named}{detect}: a difference in points, above 0 and at most 100")


def size_of(found: Answers, detect: float | None) -> float:
    """The difference to be established, a fraction of 1: `detect` points, or the one seen on this test set."""
    seen = found["this test set"]
    assert isinstance(seen, Interval)
    return seen.estimate if detect is None else detect / 100


def images_of_each(takes: Mapping[str, Need | str], row: Mapping[str, Any], scores: Scores) -> dict[str, Need | str]:
    """The same, for new images in images of each class, of which tasks that share no image are made."""
    found = dict(takes)
    tasks, disjoint = found.get("new images"), scores.disjoint
    if isinstance(tasks, Need) and disjoint is not None and disjoint.classes is not None:
        each = row["ways"] * (row["shots"] + row["queries"]) / len(np.unique(disjoint.classes))
        found["new images"] = tasks.times(each)
    return found
