"""Comparison of classification results: which of the same images each network classifies correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import Answers, needs
from fewshot.evaluation.image_comparison import QUESTIONS, Right, answers, differences, distinguishable, pairs
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.power import Need
from fewshot.evaluation.proportions import FEW
from fewshot.evaluation.statistics import established, ranks
from fewshot.evaluation.verdicts import Verdicts, read
from fewshot.identity import pixels
from fewshot.reports.comparisons.asked import Asked
from fewshot.reports.comparisons.conclusions import NO_EFFECT, SIGNIFICANT, conclusions, what_it_takes
from fewshot.reports.tables import within
from fewshot.runs import Run


@dataclass(frozen=True)
class Result:
    """One run on one split: its row of result.json, and what it made of every image."""

    row: dict[str, Any]
    record: Verdicts


def results(run: Run, asked: Asked) -> dict[tuple, list[Result]]:
    """By data set and split, on images that training did not see; {} if a head is asked for: classifiers have none.

    Raises UserError if a row or its record is damaged.
    """
    found: dict[tuple, list[Result]] = {}
    for row in run.classification:
        if asked.names_solver or row["split"] != asked.split or row.get("seen_in_training"):
            continue
        found.setdefault((row["dataset"], row["split"]), []).append(Result(row, read(run.folder, row)))
    return found


def seen(run: Run, split: str) -> bool:
    """Whether the run classified images of the split that training saw: `results` has none of these."""
    return any(row["split"] == split and row.get("seen_in_training") for row in run.classification)


def measured(row: Mapping[str, Any]) -> tuple:
    """What two rows of one split must have in common to be compared: its classes and counts, and the pixels."""
    return row["membership"], pixels(row)


def refuse(a: str, row_a: Mapping[str, Any], b: str, row_b: Mapping[str, Any]) -> UserError:
    """Why rows of one split of the runs `a` and `b` cannot be compared."""
    return UserError(
        f"pixels differ: {a} and {b} saw other copies of {name(row_a)} (fingerprints"
        f" {row_a['fingerprint'][:12]} and {row_b['fingerprint'][:12]}); evaluate both on one copy"
    )


def name(row: Mapping[str, Any]) -> str:
    """A split in a few words."""
    return f"{row['dataset']} {row['split']} images"


def title(row: Mapping[str, Any]) -> str:
    """A split in words."""
    return f"{row['dataset']} {row['split']}, {row['images']:,} images of {row['classes']} classes, top-1 accuracy"


def show(
    console: Console, names: Sequence[str], found: Sequence[dict[int, Result]], detect: float | None,
    all_pairs: bool = False,
) -> None:  # fmt: skip
    """One split: the ranked table, then each entry against the most accurate, or each other, and what it would take.

    names: of the entries; `found` has their results by seed. detect: the difference to establish, in points; None: the
    one seen on these images.
    """
    row = next(iter(found[0].values())).row
    each = [Right.of({seed: result.record for seed, result in by_seed.items()}) for by_seed in found]
    means = [right.mean.mean() for right in each]
    order = np.argsort(-np.array(means), kind="stable")
    gains = differences([each[i] for i in order])
    seeds = [[network.mean() for network in each[i].seeds.values()] for i in order]
    apart = distinguishable([[*each[i].seeds.values()] for i in order])
    placed = ranks([means[i] for i in order], established(apart, seeds))
    table = Table(title=title(row), box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("rank", "", *QUESTIONS):
        table.add_column(column, no_wrap=True)
    for place, i in sorted(zip(placed, order, strict=True), key=lambda pair: pair[0]):
        table.add_row(str(place), names[i], *map(_cell, answers(each[i]).values()))
    console.print(table)
    for (first, second), gain in gains.items():
        if first > 0 and not all_pairs:
            continue
        i, j = order[first], order[second]
        size = size_of(gain, detect)
        lines = conclusions(names[i], names[j], gain)
        lines += counted(names[i], names[j], each[i], each[j])
        lines += what_it_takes(size, plan(gain, size, row, len(gains)))
        console.print("\n".join(lines) + "\n")


def _cell(answer: Interval | str) -> str:
    return "-" if isinstance(answer, str) else within(answer.estimate, (answer.low, answer.high))


def counted(first: str, second: str, a: Right, b: Right) -> list[str]:
    """The counts that McNemar's test uses, if there is one network on either side."""
    found = pairs(a, b)
    if found is None:
        return []
    return [
        f"  of {found.n:,} images, both are right on {found.both:,}, {first} alone on {found.first:,},"
        f" {second} alone on {found.second:,}, neither on {found.neither:,}"
        + f": {NO_EFFECT}" * (found.discordant == 0)
    ]


def size_of(gain: Answers, detect: float | None) -> float:
    """The difference to establish, a fraction of 1: `detect` points, or the one seen on these images."""
    seen = gain["new images"]
    assert isinstance(seen, Interval)
    return seen.estimate if detect is None else detect / 100


def plan(gain: Answers, size: float, row: Mapping[str, Any], tests: int = 1) -> dict[str, Need | str]:
    """What it would take to establish a difference of `size`, at 5% / `tests`; {} for a difference of 0.

    For new images, counted in images of each class.
    """
    takes = needs(gain, size, SIGNIFICANT / tests) if size else {}
    images = takes.get("new images")
    if isinstance(images, Need):
        takes["new images"] = images.times(1 / row["classes"])
    return takes


def explained() -> str:
    """What the columns mean."""
    return (
        "Top-1 accuracy in per cent, with 95% intervals; each column has its own question. new images: these networks"
        " on other images of these classes (one network: Wilson's interval; two: Newcombe's, and McNemar's test, exact"
        f" below {FEW} images that only one classifies correctly, else chi-squared; several seeds: their mean,"
        " Student's t over images); training anew: the mean over training seeds, on these images."
    )
