"""What the entries of a comparison have in common, and what can and cannot be concluded from it, in words.

Two kinds of results are compared: accuracies in few-shot tasks, and classified images. Each kind is a module with the
same functions: `results` of a run, what must be `measured` alike, how to `refuse` what is not, `name` and `title` of a
row, how to `show` a comparison, and the words that are `explained`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rich.console import Console

from fewshot.core.errors import UserError
from fewshot.evaluation.overlap import in_words
from fewshot.identity import pixels
from fewshot.reports.boards.leaderboard import braced
from fewshot.reports.comparisons import of_images
from fewshot.reports.comparisons.asked import NO_TEST, TEST, Asked
from fewshot.reports.comparisons.conclusions import several
from fewshot.reports.comparisons.entries import KINDS, Entry, Finished, described, entries, load, same_but_for_code
from fewshot.runs import Run

BySeed = dict[int, Any]
"""An entry's results of one question, by training seed; of the kind's own class."""


@dataclass(frozen=True)
class Shared:
    """The questions that all entries were asked.

    `questions`, by kind: for each question, every entry's results by seed. `left_out`: a line for each question that
    only some were asked, or that was asked on different tasks, images or pixels.
    """

    questions: Mapping[ModuleType, list[list[BySeed]]]
    left_out: list[str]

    @classmethod
    def of(cls, compared: Sequence[Entry], split: str = "test") -> Shared:
        """Of several results of a question, those on the tasks or images that all have, and of these the longest.

        Raises UserError if there is no common question, or if all common ones were asked on different tasks or pixels.
        """
        runs = [run for each in compared for run in each.runs.values()]
        questions: dict[ModuleType, list[list[BySeed]]] = {kind: [] for kind in KINDS}
        unlike, left_out = [], []
        for kind in KINDS:
            for key, name in _questions(runs, kind).items():
                if missing := [run.name for run in runs if key not in run.results[kind]]:
                    left_out.append(f"{name}: there is no such result of {braced(missing)}; evaluate all alike")
                elif found := _alike(compared, kind, key):
                    questions[kind].append(found)
                else:
                    unlike.append(_unlike(runs, kind, key))
                    left_out.append(f"{name}: {unlike[-1]}")
        if not any(questions.values()):
            raise unlike[0] if unlike else _nothing_shared(runs, split)
        return cls(questions, left_out)

    def __iter__(self) -> Iterator[tuple[ModuleType, list[BySeed]]]:
        return ((kind, results) for kind, each in self.questions.items() for results in each)


def _questions(runs: Iterable[Finished], kind: ModuleType) -> dict[tuple, str]:
    """What any of the runs was asked, and its name."""
    return {key: kind.name(same[0].row) for run in runs for key, same in run.results[kind].items()}


def _alike(compared: Sequence[Entry], kind: ModuleType, key: tuple) -> list[BySeed] | None:
    """Every entry's results of a question, by seed, on what all have; None if they have nothing in common."""
    by_measure = {
        run.name: {kind.measured(each.row): each for each in reversed(run.results[kind][key])}
        for entry in compared
        for run in entry.runs.values()
    }
    first, *others = by_measure.values()
    for measure in reversed(first):  # the longest first
        if all(measure in each for each in others):
            return [{seed: by_measure[run.name][measure] for seed, run in each.runs.items()} for each in compared]
    return None


def _unlike(runs: Sequence[Finished], kind: ModuleType, key: tuple) -> UserError:
    """Why a question that all were asked cannot be compared."""
    first, *others = runs
    row = first.results[kind][key][0].row
    for run in others:
        if kind.measured(other := run.results[kind][key][0].row) != kind.measured(row):
            return kind.refuse(first.name, row, run.name, other)
    return UserError(f"these runs share nothing of {kind.name(row)}; evaluate them alike")


def _nothing_shared(runs: Sequence[Finished], split: str) -> UserError:
    first, *others = runs
    for run in others:
        if not any(first.results[kind].keys() & run.results[kind].keys() for kind in KINDS):
            one, other = (_asked(each) or f"nothing of the {split} split that can be compared" for each in (first, run))
            for each in (first, run):
                if of_images.seen(Run.open(each.folder), split):
                    saw = f"the training of {each.name} saw the {split} images"
                    return UserError(f"{saw}: classifiers are not compared on what they were trained on")
            how = "alike" if split == TEST.split else f"by evaluate --split {split}"
            return UserError(
                f"{first.name} and {run.name} share no tasks: they were scored under {one} and {other}; evaluate both"
                f" {how}"
            )
    return UserError("these runs share no tasks: no protocol that all were scored under; evaluate them alike")


def _asked(run: Finished) -> str:
    return ", ".join(kind.name(same[0].row) for kind in KINDS for same in run.results[kind].values())


def warnings_of(compared: Sequence[Entry], shared: Shared) -> list[str]:
    """What the reader of a comparison must know: what was left out, and what was evaluated differently."""
    lines = [f"not compared: {each}" for each in shared.left_out]
    for _, results in shared:
        lines += _other_precision(compared, results) + _other_base(compared, results) + _seen(compared, results)
    return list(dict.fromkeys(lines))


def _other_precision(compared: Sequence[Entry], results: Sequence[BySeed]) -> list[str]:
    """Runs evaluated in another precision than they were trained in, unless all here were evaluated in the same one."""
    evaluated = {
        run.name: (run, precision)
        for entry, by_seed in zip(compared, results, strict=True)
        for seed, run in entry.runs.items()
        if (precision := _precision(by_seed[seed].row))
    }
    if len({precision for _, precision in evaluated.values()}) == 1:
        return []
    return [
        f"{name} was trained in {run.precision} and evaluated in {precision}, unlike others here: evaluate it again, by"
        f" --precision {run.precision}"
        for name, (run, precision) in evaluated.items()
        if run.precision and precision != run.precision
    ]


def _precision(row: Mapping[str, Any]) -> str | None:
    """What a row was evaluated in; None in rows of older versions."""
    by = row.get("evaluated_by")
    return by.get("precision") if isinstance(by, dict) else None


def _other_base(compared: Sequence[Entry], results: Sequence[BySeed]) -> list[str]:
    """Runs that were trained and solved alike, but with other base classes: older versions took those tested on."""
    alike: dict[tuple, dict[str | None, list[tuple[str, Mapping[str, Any]]]]] = {}
    for entry, by_seed in zip(compared, results, strict=True):
        for seed, run in entry.runs.items():
            row = by_seed[seed].row
            solved = row.get("head"), row.get("transform"), run.experiment["trained on"]
            alike.setdefault(solved, {}).setdefault(pixels(row.get("base", row)), []).append((run.name, row))
    mixed = [its for by_base in alike.values() if len(by_base) > 1 for each in by_base.values() for its in each]
    return [
        f"{name} was solved with base classes of {row['dataset']}, as by an older version, and others here with those"
        " that they were trained on: evaluate it again"
        for name, row in mixed
        if "base" not in row
    ]


def _seen(compared: Sequence[Entry], results: Sequence[BySeed]) -> list[str]:
    """Runs whose training saw some of what they are tested on, which the leaderboard ranks apart."""
    return [
        f"{run.name} was trained on {in_words(seen)} of {row['dataset']} {row['split']}: its accuracy is not one on new"
        " ones"
        for entry, by_seed in zip(compared, results, strict=True)
        for seed, run in entry.runs.items()
        if (seen := (row := by_seed[seed].row).get("seen_in_training")) and row["split"] not in NO_TEST
    ]


def print_all(
    console: Console, folders: Iterable[str], points: float | None = None, each_asked: Sequence[Asked] = (TEST,),
    all_pairs: bool = False,
) -> None:  # fmt: skip
    """Compare the runs of two configurations or more, under each protocol and on each split that all were scored on.

    Also says what it would take to establish a difference of so many `points`; by default, the one seen.
    `each_asked`: on one split, by each of these solvers. `all_pairs`: say it of all pairs, not only of those with the
    most accurate entry. Raises UserError if fewer than two configurations can be read, or if they share nothing.
    """
    split = each_asked[0].split
    runs, problems = load(folders, each_asked)
    compared = entries(runs)
    shared = Shared.of(compared, split)
    for problem in problems:
        console.print(f"warning: left out: {problem}")
    for warning in warnings_of(compared, shared):
        console.print(f"warning: {warning}")
    for a, b in same_but_for_code(compared):
        console.print(f"warning: {a} and {b} were trained by different code, so that they are not seeds of one entry")
    for each in compared:
        console.print(described(each))
    console.print()
    if split in NO_TEST and _of_their_own(compared, shared):
        console.print(f"The {split} split: {NO_TEST[split]}.\n")
    for kind, questions in shared.questions.items():
        for results in questions:
            kind.show(console, [each.name for each in compared], results, points, all_pairs)
        if questions:
            console.print(kind.explained() + several(len(compared)))


def _of_their_own(compared: Sequence[Entry], shared: Shared) -> bool:
    """Whether a result is on the data set that the run was trained on."""
    return any(
        Run.open(run.folder).is_on_its_own(by_seed[seed].row)
        for _, results in shared
        for each, by_seed in zip(compared, results, strict=True)
        for seed, run in each.runs.items()
    )


def check_points(detect: float | None, named: str) -> None:
    """UserError if `detect` is given and is no difference in points, above 0 and at most 100."""
    if detect is not None and not 0 < detect <= 100:
        raise UserError(f"{named}{detect}: a difference in points, above 0 and at most 100")
