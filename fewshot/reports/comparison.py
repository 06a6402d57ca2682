"""Which runs can be compared, and what can and cannot be concluded of them, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import QUESTIONS, Answers, Scores, answers, differences
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.records import read
from fewshot.evaluation.statistics import distinguishable, ranks
from fewshot.reports.leaderboard import NOT_THE_EXPERIMENT
from fewshot.reports.tables import percent
from fewshot.runs import Run

SIGNIFICANT = 0.05
_WIDEST = max(map(len, QUESTIONS))
_PROTOCOL = ("dataset", "split", "ways", "shots", "queries", "episodes_seed")
_NEEDED = ("head", "episodes", "episodes_file", "episodes_digest", "fingerprint")


@dataclass(frozen=True)
class Entry:
    """One configuration: `name` is a letter, `runs` are by training seed, `told_by` says what sets it apart."""

    name: str
    runs: dict[int, Run]
    told_by: str


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Runs whose configurations differ in nothing but the seed are one entry. UserError where fewer than two remain."""
    groups: dict[str, dict[int, Run]] = {}
    for each in runs:
        same = groups.setdefault(_identity(each), {})
        seed = each.config.seed
        if seed in same:
            raise UserError(f"{same[seed].folder} and {each.folder} are one training, seed included: give only one")
        same[seed] = each
    if len(groups) < 2:
        raise UserError("nothing to compare: give runs of two configurations that differ in more than the seed")
    if len(groups) > len(ascii_uppercase):
        raise UserError(f"{len(groups)} configurations: give at most {len(ascii_uppercase)} at once")
    facts = [json.loads(identity) for identity in groups]
    telling = [key for key in facts[0] if any(each[key] != facts[0][key] for each in facts)]
    return [
        Entry(name, dict(sorted(group.items())), ", ".join(f"{key}={fact[key]}" for key in telling))
        for name, fact, group in zip(ascii_uppercase, facts, groups.values())
    ]


def _identity(run: Run) -> str:
    facts = {key: value for key, value in asdict(run.config).items() if key not in NOT_THE_EXPERIMENT}
    found = {"precision": run.environment.get("precision"), "trained on": run.resolved.get("fingerprint")}
    return json.dumps(facts | found)


def shared_protocols(compared: Sequence[Entry]) -> list[list[dict[int, dict[str, Any]]]]:
    """For each protocol that all runs were scored under, each entry's result rows by seed.

    UserError where there is none, or where the episodes or the pixels were not the same.
    """
    rows = [{seed: _rows(run) for seed, run in each.runs.items()} for each in compared]
    every = [
        (run, by_seed[seed])
        for each, by_seed in zip(compared, rows, strict=True)
        for seed, run in each.runs.items()
    ]
    (first, its), *others = every
    for run, theirs in others:
        if not its.keys() & theirs.keys():
            raise UserError(
                f"{first.folder} and {run.folder} share no tasks: they were scored under"
                f" {_named(its.values())} and {_named(theirs.values())}; evaluate both alike"
            )
    shared = [key for key in its if all(key in theirs for _, theirs in others)]
    if not shared:
        raise UserError("these runs share no tasks: no protocol that all were scored under; evaluate them alike")
    for key, (run, theirs) in [(key, other) for key in shared for other in others]:
        _check_same(first, its[key], run, theirs[key])
    return [[{seed: found[key] for seed, found in theirs.items()} for theirs in rows] for key in shared]


def _rows(run: Run) -> dict[tuple, dict[str, Any]]:
    """The run's results with its own head, by protocol."""
    found = run.result.get("results", [{}])
    if any(key not in row for row in found for key in (*_PROTOCOL, *_NEEDED)):
        raise UserError(f"{run.result_path} is not a result of ours: evaluate {run.folder} again")
    return {tuple(row[key] for key in _PROTOCOL): row for row in found if row["head"] == run.config.head}


def _check_same(a: Run, row_a: dict[str, Any], b: Run, row_b: dict[str, Any]) -> None:
    if row_a["episodes_digest"] != row_b["episodes_digest"]:
        raise UserError(
            f"{a.folder} and {b.folder} share no tasks: their {_title(row_a)} episodes differ"
            f" ({row_a['episodes']:,} and {row_b['episodes']:,} of them); evaluate both on the same data set with the"
            " same --episodes"
        )
    if row_a["fingerprint"] != row_b["fingerprint"]:
        raise UserError(
            f"pixels differ: {a.folder} and {b.folder} saw other copies of {row_a['dataset']} (fingerprints"
            f" {row_a['fingerprint'][:12]} and {row_b['fingerprint'][:12]}); evaluate both on one copy"
        )


def _title(row: dict[str, Any]) -> str:
    return f"{row['dataset']} {row['split']} {row['ways']}-way {row['shots']}-shot"


def _named(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"{_title(row)} of {row['queries']} queries" for row in rows) or "nothing"


def print_entries(console: Console, compared: Sequence[Entry]) -> None:
    """The letters, and what they stand for."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "runs", "differ in", "seeds"):
        table.add_column(column, overflow="fold")
    for each in compared:
        folders = "\n".join(str(run.folder) for run in each.runs.values())
        table.add_row(each.name, folders, each.told_by, " ".join(map(str, each.runs)))
    console.print(table)


def print_comparison(console: Console, compared: Sequence[Entry], rows: Sequence[dict[int, dict[str, Any]]]) -> None:
    """One protocol: the ranked table, then each entry against the most accurate."""
    scores = [
        Scores.of({seed: read(each.runs[seed], row) for seed, row in by_seed.items()})
        for each, by_seed in zip(compared, rows, strict=True)
    ]
    row = next(iter(rows[0].values()))
    episodes = np.stack([each.episodes.accuracies for each in scores])
    placed = ranks(episodes.mean(1), distinguishable(episodes))
    order = sorted(range(len(scores)), key=lambda i: -scores[i].episodes.accuracies.mean())
    title = f"{_title(row)}, {row['queries']} queries a class, {row['episodes']:,} episodes"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("rank", "", *QUESTIONS):
        table.add_column(column, no_wrap=True)
    for i in order:
        found = answers(scores[i]).values()
        cells = ["-" if isinstance(each, str) else percent(each.estimate, each.half_width) for each in found]
        table.add_row(str(placed[i]), compared[i].name, *cells)
    console.print(table)
    pairs = differences([scores[i] for i in order])
    names = [compared[i].name for i in order]
    for place in range(1, len(order)):
        console.print("\n".join(conclusions(names[0], names[place], pairs[0, place])) + "\n")


def conclusions(first: str, second: str, found: Answers) -> list[str]:
    """What can and cannot be said of first - second, a line a question."""
    return [f"{first} against {second}"] + [
        f"  {question:<{_WIDEST}}  {answer if isinstance(answer, str) else _verdict(first, second, answer)}"
        for question, answer in found.items()
    ]


def _verdict(first: str, second: str, gain: Interval) -> str:
    probability = "p < 0.001" if gain.p_value < 0.001 else f"p = {gain.p_value:.2g}"
    if gain.p_value < SIGNIFICANT:
        better, worse = (first, second) if gain.estimate > 0 else (second, first)
        by = percent(abs(gain.estimate), gain.half_width)
        return f"{better} is better than {worse} by {by} points ({probability})"
    between = f"{100 * gain.low:+.2f} .. {100 * gain.high:+.2f}"
    alone = ", though by itself it would be" if gain.low > 0 or gain.high < 0 else ""
    return f"a difference is not established{alone}: {first} - {second} is {between} points ({probability})"


def explained(count: int) -> str:
    """What the columns and the words mean, below the tables."""
    text = (
        "In per cent, with 95% intervals, of which each speaks of its own value. this test set: these networks on these"
        " images; new images: on other images of these classes, from the tasks that share no image, which are few; new"
        " classes: on other classes like these; training anew: the mean over training seeds, on this test set."
    )
    pairs = count * (count - 1) // 2
    return text + (f" Each is set against the most accurate; p-values are Holm's over all {pairs} pairs, intervals are by themselves." if pairs > 1 else "")
