"""Ranks that equals share: rows that a test cannot separate have no order.

A board is the rows of the same tasks: data set, ways, shots, setting, queries, episodes and pixels. Transductive rows
are a board of their own: they use the other queries of a task, which inductive rows may not. So are rows of unbalanced
tasks. The rows of a board stand in the order of their accuracy. The first leads a group; the following rows belong to
it until one differs from the leader by the test. That row leads the next group. A row's rank is its leader's place. So
a rank says "not separated from the leader of this group", and nothing about the group's other members.

Rows are separated by the paired test over episodes (`evaluation.statistics.distinguishable`), where an episode's
accuracy is the mean over the row's seeds: what is hard about a task is hard for both. The test is about these
networks on this test set. Where one of two rows has several seeds, its ci95 is about training again, and the two must
differ by their ci95, too, taken as independent: half-width sqrt(a^2 + b^2). A rank claims no more than the figures
beside it. Where the episodes of a board's rows are not all at hand, as in a CSV that was merged, the whole board is
ranked by `ci95` alone, which ties more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from fewshot.evaluation.records import read_accuracies
from fewshot.evaluation.statistics import distinguishable, ranks
from fewshot.reports.leaderboard import Row

PAIRED, BY_INTERVALS = "paired differences", "ci95"


def task(row: Row) -> tuple:
    """What was asked: rows of different tasks are never compared."""
    return row["dataset"], int(row["ways"]), int(row["shots"]), float(row["query_alpha"] or 0), row["setting"]


def board(row: Row) -> tuple:
    """The task and its episodes and pixels: rows of different boards are never ranked together."""
    return *task(row), int(row["queries"]), row["episodes_digest"], row["fingerprint"]


def rank(rows: Iterable[Row], paired: bool = True) -> list[Row]:
    """The rows in the order of the leaderboard, with the RANKED columns filled.

    Of a task's boards the one with the most rows comes first, and the others say how their tasks differ from it.
    `paired` False ranks by ci95 even where episodes are at hand.
    """
    ranked = []
    for _, same_task in groupby(sorted(rows, key=board), task):
        boards = [list(same_board) for _, same_board in groupby(same_task, board)]
        boards.sort(key=len, reverse=True)
        for each in boards:
            tasks = _how_tasks_differ(each[0], boards[0][0])
            each.sort(key=lambda row: (-row.accuracy, row["run"]))
            by = PAIRED if paired and all(score.episodes for row in each for score in row.scores) else BY_INTERVALS
            apart = _distinguishable_in_pairs(each) if by == PAIRED else _distinguishable_by_intervals(each)
            places = ranks([row.accuracy for row in each], apart)
            ranked += [row.ranked(place, tasks, by) for row, place in zip(each, places, strict=True)]
    return ranked


def tied(rows: Sequence[Row]) -> set[tuple]:
    """Each (board, rank) that several of the rows share."""
    seen: set[tuple] = set()
    shared: set[tuple] = set()
    for place in ((board(row), row["rank"]) for row in rows):
        (shared if place in seen else seen).add(place)
    return shared


def _distinguishable_in_pairs(rows: Sequence[Row]) -> np.ndarray:
    apart = distinguishable(np.stack([_episodes(row) for row in rows]))
    several = np.array([len(row.scores) > 1 for row in rows])
    return apart & (_distinguishable_by_intervals(rows) | ~(several[:, None] | several))


def _distinguishable_by_intervals(rows: Sequence[Row]) -> np.ndarray:
    means, widths = np.array([row.accuracy for row in rows]), np.array([row.ci95 for row in rows])
    return np.abs(means[:, None] - means) > np.hypot(widths[:, None], widths)


def _episodes(row: Row) -> np.ndarray:
    """Accuracy of each episode (n,), mean over the row's seeds."""
    return np.mean([read_accuracies(*score.episodes) for score in row.scores if score.episodes], axis=0)


def _how_tasks_differ(row: Row, most: Row) -> str:
    for column, word in (("queries", "queries"), ("episodes_digest", "episodes"), ("fingerprint", "pixels")):
        if row[column] != most[column]:
            return f"other {word}"
    return "common"
