"""The entries of a comparison: what of a run is compared, which runs are seeds of one entry, and how entries differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase
from types import ModuleType
from typing import Any

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.reports.boards.leaderboard import braced, code_behind, experiment_of
from fewshot.reports.comparisons import of_images, of_tasks
from fewshot.reports.comparisons.asked import TEST, Asked
from fewshot.reports.tables import DEFAULTS, head_name
from fewshot.runs import FOREIGN, Run

KINDS = (of_tasks, of_images)
_KNOWN = ("dataset", "regime", "backbone", "head", "reg", "transform", "init")  # of a network trained elsewhere
_SOLVER = "solver"  # the fact of an experiment that says what solved the tasks, if that was asked for
_MOST_NAMED = 3  # problems in one line
Result = of_tasks.Result | of_images.Result


@dataclass(frozen=True)
class Finished:
    """All of a run that a comparison needs.

    `solver`: what solved its tasks, if that was asked for. `precision`: what it was trained in; "" if that is not
    known. `results`, by kind: for each question (protocol, or split), those on different tasks, images or pixels, the
    longest first.
    """

    folder: str
    solver: str
    config: TrainConfig
    precision: str
    experiment: dict[str, Any]
    code: str
    results: Mapping[ModuleType, Mapping[tuple, Sequence[Result]]]

    @classmethod
    def load(cls, folder: str, asked: Asked = TEST) -> Finished:
        """Raises UserError if the run is unfinished or damaged, or if it has no result by the head that was asked for.

        In the last case, the message says how to make one.
        """
        run = Run.open(folder)
        run.result  # noqa: B018  which must be there
        found = {kind: kind.results(run, asked) for kind in KINDS}
        experiment, solver = experiment_of(run), ""
        if asked.names_solver:
            head, transform = asked.solver(run.config)
            solver = head_name({"head": head, "transform": transform})
            if not found[of_tasks]:
                raise _not_solved(run, asked, solver)
            experiment[_SOLVER] = solver
        rows = [each.row for same in found[of_tasks].values() for each in same]
        code = code_behind(run, rows)
        return cls(str(folder), solver, run.config, run.precision, experiment, code, found)

    @property
    def identity(self) -> str:
        """Equal for runs that differ only in the seed."""
        return json.dumps([self.experiment, self.code], sort_keys=True)

    @property
    def name(self) -> str:
        """The folder, and what solved its tasks, if that was asked for."""
        return f"{self.folder} by {self.solver}" if self.solver else self.folder


def _not_solved(run: Run, asked: Asked, solver: str) -> UserError:
    there = dict.fromkeys(head_name(DEFAULTS | row) for row in run.rows if row["split"] == asked.split)
    known = f"there are results by {', '.join(there)}" if there else "there are none by any head"
    if run.config.regime == FOREIGN:
        remedy = "give its network to fewshot.benchmark again, with this head"
    else:
        from fewshot import heads, transforms  # with torch: only where it is needed

        if asked.head:  # a remedy with a wrong name would be none; what the run folder names is not imported here
            heads.build(asked.head)
        if asked.transform:
            transforms.build(asked.transform)
        remedy = "make it by " + shlex.join(["python", "-m", "fewshot.evaluate", str(run.folder), *asked.flags])
    return UserError(f"{run.folder} has no {asked.split} result by {solver} ({known}): {remedy}")


@dataclass(frozen=True)
class Entry:
    """One configuration: a letter, its runs by training seed, and the facts in which it differs from other entries."""

    name: str
    runs: dict[int, Finished]
    differs_in: str


def load(folders: Iterable[str], each_asked: Sequence[Asked] = (TEST,)) -> tuple[list[Finished], list[str]]:
    """The runs that can be read, once for each solver asked for; for each of the others, a line that says why not.

    Raises UserError if some cannot be read and fewer than two configurations are left.
    """
    runs, problems = [], []
    for folder in folders:
        for asked in each_asked:
            try:
                runs.append(Finished.load(folder, asked))
            except UserError as error:
                problems.append(str(error))
    problems = list(dict.fromkeys(problems))
    if problems and len({run.identity for run in runs}) < 2:
        more = len(problems) - _MOST_NAMED
        raise UserError("; ".join(problems[:_MOST_NAMED]) + f"; and {more:,} more like these" * (more > 0))
    return runs, problems


def entries(runs: Sequence[Finished]) -> list[Entry]:
    """Runs that differ in nothing but the seed are one entry. Raises UserError if there are fewer than two entries."""
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
    """`reg=none, lr=0.1`; and the code, if another entry is the same experiment."""
    known = (*_KNOWN, _SOLVER) if run.config.regime == FOREIGN else fields
    facts = [f"{name}={_fact(run, name)}" for name in fields if name in known]
    if sum(other.experiment == run.experiment for other in others) > 1:
        facts.append(f"code={run.code or 'unknown'}")
    return ", ".join(facts)


def _fact(run: Finished, name: str) -> Any:
    """A field of the experiment; if it does not name the field, the configuration's value."""
    unsaid = 1 if name == "processes" else getattr(run.config, name, "")  # a single process is not noted
    value = run.experiment.get(name, unsaid)
    return "none" if value in ("", None) else value


def same_but_for_code(compared: Sequence[Entry]) -> list[tuple[str, str]]:
    """Names of the entries, in pairs, that differ in nothing but the code that trained them."""
    first = {each.name: next(iter(each.runs.values())) for each in compared}
    return [(a, b) for a, b in combinations(first, 2) if first[a].experiment == first[b].experiment]


def described(each: Entry) -> str:
    """The letter and what it stands for. The folders have a line of their own, so that no width breaks a name."""
    seeds = " ".join(map(str, each.runs))
    told = f"  {each.name}  {each.differs_in}, seed{'s' * (len(each.runs) > 1)} {seeds}"
    return f"{told}\n     {braced([run.folder for run in each.runs.values()])}"
