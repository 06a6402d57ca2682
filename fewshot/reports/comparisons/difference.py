"""The paired difference of two configurations from their run folders: `fewshot.difference`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fewshot.core.errors import UserError
from fewshot.evaluation import image_comparison
from fewshot.evaluation.comparison import Answers, answers
from fewshot.evaluation.image_comparison import Right
from fewshot.evaluation.power import Need
from fewshot.evaluation.proportions import Pairs
from fewshot.reports.comparisons import of_images, of_tasks
from fewshot.reports.comparisons.asked import Asked
from fewshot.reports.comparisons.comparison import BySeed, Shared, check_points, warnings_of
from fewshot.reports.comparisons.conclusions import conclusions, what_it_takes
from fewshot.reports.comparisons.entries import Entry, Finished, entries, same_but_for_code
from fewshot.runs import Run

Runs = str | os.PathLike | Run | Iterable[str | os.PathLike | Run]


@dataclass(frozen=True)
class Difference:
    """a - b under one protocol, paired by tasks; fractions of 1. `print` shows what `compare` says about it.

    `episodes_seed`: of the list of tasks; 0 for the usual one.
    `answers`: an interval for each question ("this test set", "new images", "new classes", "training anew"), or a text
        that says why there is none.
    `size`: the difference that `needs` is about: the one seen on this test set, or `detect`.
    `needs`: how many images of each class, test classes and training seeds would establish it with 80% power. For
        images, `have` counts those in tasks that share no image: the data set may have more.
    """

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    query_alpha: float | None
    episodes: int
    episodes_seed: int
    setting: str
    answers: Answers
    size: float
    needs: Mapping[str, Need | str]
    names: tuple[str, str]
    title: str

    def __str__(self) -> str:
        takes = what_it_takes(self.size, self.needs, of_tasks=True)
        return "\n".join([self.title, *conclusions(*self.names, self.answers), *takes])


@dataclass(frozen=True)
class ImageDifference:
    """a - b of the top-1 accuracies on one split, paired by images; fractions of 1. `print` shows what `compare` says.

    `answers`: an interval for each question ("new images", "training anew"), or a text that says why there is none.
    `pairs`: how many images both, one or neither classify correctly, if there is one network on either side; else None.
    `size`, `needs`: as in Difference, for images of each class and training seeds.
    """

    dataset: str
    split: str
    images: int
    answers: Answers
    pairs: Pairs | None
    size: float
    needs: Mapping[str, Need | str]
    names: tuple[str, str]
    title: str
    counted: Sequence[str]

    def __str__(self) -> str:
        said = [*conclusions(*self.names, self.answers), *self.counted, *what_it_takes(self.size, self.needs)]
        return "\n".join([self.title, *said])


def difference(
    a: Runs,
    b: Runs,
    *,
    detect: float | None = None,
    names: tuple[str, str] = ("A", "B"),
    split: str = "test",
    head: str | None = None,
    transform: str | None = None,
) -> list[Difference | ImageDifference]:
    """What two configurations prove about each other: one Difference for each protocol that both were scored under.

    For each split on whose images the classifiers of both were tested, an ImageDifference.

    a, b: a run (a folder, or what `fewshot.run` returned), or the runs of one configuration with several seeds. Only
        seeds that both have count for training anew.
    detect: the difference, in points, that `needs` is about; by default the one seen on this test set.
    names: what the two are called in the text.
    split: whose results are compared. Only "test" is a test: validation chose the weights, and training saw its images.
    head, transform: what solved the tasks, as written for `evaluate`; by default each run's own.

    Warns (UserWarning) of each protocol that is not compared because only some runs were scored under it, or on other
    tasks or pixels, and of runs that were evaluated differently from the others. `compare` prints the same lines.

    Raises UserError if a run is unfinished, if `a` or `b` is more than one configuration, if both are the same one, or
    if they were scored on no common tasks or images at all.
    """
    check_points(detect, "detect=")
    first, second = _folders(a), _folders(b)
    compared = entries([Finished.load(folder, Asked(split, head, transform)) for folder in (*first, *second)])
    for given, runs in zip((first, second), compared, strict=False):
        if len(compared) > 2 or {run.folder for run in runs.runs.values()} != set(given):
            third = "some here are of a third" if len(compared) > 2 else "here both are mixed"
            for one, other in same_but_for_code(compared):
                third = f"different code trained {_first(compared, one)} and {_first(compared, other)}"
            raise UserError(f"give the runs of one configuration, and then those of another: {third}")
    shared = Shared.of(compared, split)
    for warning in warnings_of(compared, shared):
        warnings.warn(warning, stacklevel=2)
    return [(_of_tasks if kind is of_tasks else _of_images)(results, detect, names) for kind, results in shared]


def _first(compared: Sequence[Entry], name: str) -> str:
    """The folder of the first run of the entry of that name."""
    return next(run.folder for each in compared if each.name == name for run in each.runs.values())


def _of_tasks(results: Sequence[BySeed], detect: float | None, names: tuple[str, str]) -> Difference:
    one, other = map(of_tasks.scores_of, results)
    row, gain = next(iter(results[0].values())).row, one - other
    said = answers(gain)
    size = of_tasks.size_of(said, detect)
    return Difference(
        row["dataset"], row["split"], row["ways"], row["shots"], row["queries"], row["query_alpha"] or None,
        row["episodes"], row["episodes_seed"], row["setting"], said,
        size, of_tasks.plan(said, size, row, gain), names, of_tasks.title(row),
    )  # fmt: skip


def _of_images(results: Sequence[BySeed], detect: float | None, names: tuple[str, str]) -> ImageDifference:
    one, other = (Right.of({seed: each.record for seed, each in by_seed.items()}) for by_seed in results)
    row, said = next(iter(results[0].values())).row, image_comparison.difference(one, other)
    size = of_images.size_of(said, detect)
    return ImageDifference(
        row["dataset"], row["split"], row["images"], said, image_comparison.pairs(one, other), size,
        of_images.plan(said, size, row), names, of_images.title(row),
        of_images.counted(*names, one, other),
    )  # fmt: skip


def _folders(runs: Runs) -> Sequence[str]:
    each_run = [runs] if isinstance(runs, (str, os.PathLike, Run)) else list(runs)
    return [str(each.folder if isinstance(each, Run) else each) for each in each_run]
