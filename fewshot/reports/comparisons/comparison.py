"""Which runs can be compared, and what can and cannot be concluded from them, in words.

What is compared is of two kinds: accuracies in few-shot tasks, and classified images. Each kind is a module with the
same functions: `results` of a run, what must be `measured` alike, how to `refuse` what is not, `name` and `title` of a
row, how to `show` a comparison, and the words that are `explained`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase
from types import ModuleType
from typing import Any

from rich.console import Console

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.reports.boards.leaderboard import braced, code_behind, experiment_of
from fewshot.reports.comparisons import of_images, of_tasks
from fewshot.reports.comparisons.conclusions import several
from fewshot.runs import FOREIGN, Run

KINDS = (of_tasks, of_images)
_KNOWN = ("dataset", "regime", "backbone", "head", "reg", "transform", "init")  # of a network trained elsewhere
Result = of_tasks.Result | of_images.Result
BySeed = dict[int, Any]
"""An entry's results of one question, by training seed; of the kind's own class."""


@dataclass(frozen=True)
class Finished:
    """All of a run that a comparison needs.

    `results`, by kind: for each question (protocol, or split) those on different tasks, images or pixels, the longest
    first.
    """

    folder: str
    config: TrainConfig
    experiment: dict[str, Any]
    code: str
    results: Mapping[ModuleType, Mapping[tuple, Sequence[Result]]]

    @classmethod
    def load(cls, folder: str) -> Finished:
        """UserError where the run is unfinished or damaged."""
        run = Run.open(folder)
        run.result  # noqa: B018  which must be there
        found = {kind: kind.results(run) for kind in KINDS}
        rows = [each.row for same in found[of_tasks].values() for each in same]
        return cls(str(folder), run.config, experiment_of(run), code_behind(run, rows), found)

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


def shared(compared: Sequence[Entry]) -> dict[ModuleType, list[list[BySeed]]]:
    """By kind, for each question that all runs were asked: every entry's results by seed.

    Of several results of a question those on the tasks or images that all have, and of these the longest. UserError
    where there is no common question, or where the only ones were asked on other tasks or pixels.
    """
    found: dict[ModuleType, list[list[BySeed]]] = {}
    problems = []
    for kind in KINDS:
        try:
            found[kind] = _shared(compared, kind)
        except UserError as error:
            problems.append(error)
    if any(found.values()):
        return found
    raise problems[0] if problems else _nothing_shared(compared)


def _shared(compared: Sequence[Entry], kind: ModuleType) -> list[list[BySeed]]:
    """The same for one kind. UserError where all common questions were asked on other tasks or images."""
    first, *others = [run for each in compared for run in each.runs.values()]
    found: list[list[BySeed]] = []
    problems: list[UserError] = []
    for key in first.results[kind]:
        if not all(key in run.results[kind] for run in others):
            continue
        by_measure = {
            run.folder: {kind.measured(each.row): each for each in reversed(run.results[kind][key])}
            for run in (first, *others)
        }
        measures = [kind.measured(each.row) for each in first.results[kind][key]]
        common = [each for each in measures if all(each in its for its in by_measure.values())]
        if not common:
            problems.append(_unlike(first, others, kind, key))
            continue
        found.append(
            [{seed: by_measure[run.folder][common[0]] for seed, run in each.runs.items()} for each in compared]
        )
    if problems and not found:
        raise problems[0]
    return found


def _unlike(first: Finished, others: Sequence[Finished], kind: ModuleType, key: tuple) -> UserError:
    """Why a question that all were asked cannot be compared."""
    row = first.results[kind][key][0].row
    for run in others:
        if kind.measured(other := run.results[kind][key][0].row) != kind.measured(row):
            return kind.refuse(first.folder, row, run.folder, other)
    return UserError(f"these runs share nothing of {kind.name(row)}; evaluate them alike")


def _nothing_shared(compared: Sequence[Entry]) -> UserError:
    first, *others = [run for each in compared for run in each.runs.values()]
    for run in others:
        if not any(first.results[kind].keys() & run.results[kind].keys() for kind in KINDS):
            return UserError(
                f"{first.folder} and {run.folder} share no tasks: they were scored under"
                f" {_named(first)} and {_named(run)}; evaluate both alike"
            )
    return UserError("these runs share no tasks: no protocol that all were scored under; evaluate them alike")


def _named(run: Finished) -> str:
    names = [kind.name(same[0].row) for kind in KINDS for same in run.results[kind].values()]
    return ", ".join(names) or "nothing"


def print_all(console: Console, folders: Iterable[str], points: float | None = None) -> None:
    """Compare the runs of two configurations or more, under each protocol and on each split that all were scored on.

    `points`: the difference that it should say what it would take to establish; by default, the one seen. UserError
    where fewer than two configurations can be read, or where they share nothing.
    """
    runs, problems = load(folders)
    compared = entries(runs)
    found = shared(compared)
    for problem in problems:
        console.print(f"warning: one run is left out: {problem}")
    for a, b in same_but_for_code(compared):
        console.print(f"warning: {a} and {b} were trained by different code, so that they are not seeds of one entry")
    print_entries(console, compared)
    names = [each.name for each in compared]
    for kind, questions in found.items():
        for results in questions:
            kind.show(console, names, results, points)
        if questions:
            console.print(kind.explained() + several(len(compared)))


def print_entries(console: Console, compared: Sequence[Entry]) -> None:
    """The letters and what they stand for. A folder has a line of its own, so that no width breaks its name."""
    for each in compared:
        seeds = " ".join(map(str, each.runs))
        console.print(f"  {each.name}  {each.differs_in}, seed{'s' * (len(each.runs) > 1)} {seeds}")
        console.print(f"     {braced([run.folder for run in each.runs.values()])}")
    console.print()


def check_points(detect: float | None, named: str) -> None:
    """UserError where it is no difference in points."""
    if detect is not None and not 0 < detect <= 100:
        raise UserError(f"{named}{detect}: a difference in points, above 0 and at most 100")
