"""Ranks that equals share: rows that a test cannot separate have no order.

A board is the rows of the same tasks or images (`Kind.board`); rows of different boards are never compared. The rows of
a board stand in the order of their accuracy. The first leads a group; the following rows belong to it until one differs
from the leader by the test. That row leads the next group. A row's rank is its leader's place. So a rank says "not
separated from the leader of this group", and nothing about the group's other members.

Rows are separated by the kind's paired test (`Kind.apart`), which is about these networks. Where one of two rows has
several seeds, its ci95 is about training again, and the two must differ by their ci95, too, taken as independent:
half-width sqrt(a^2 + b^2). A rank claims no more than the figures beside it. Where the records of a board's rows are
not all at hand, as in a CSV that was merged, the whole board is ranked by `ci95` alone, which ties more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from fewshot.evaluation.statistics import ranks
from fewshot.reports.boards.leaderboard import BY_INTERVALS, PAIRED, Row


def board(row: Row) -> tuple:
    """What rows are ranked together by: the kind, the tasks or images, and the pixels."""
    return type(row.kind).__name__, *row.kind.board(row)


def rank(rows: Iterable[Row], paired: bool = True) -> list[Row]:
    """The rows, all of one kind, in the order of the leaderboard, with the RANKED columns filled.

    Of a question's boards the one with the most rows comes first, and the others say how they differ from it. `paired`
    False ranks by ci95 even where records are at hand.
    """
    ranked = []
    for _, same_question in groupby(sorted(rows, key=board), lambda row: row.kind.question(row)):
        boards = [list(same_board) for _, same_board in groupby(same_question, board)]
        boards.sort(key=len, reverse=True)
        for each in boards:
            kind = each[0].kind
            tasks = kind.differs(each[0], boards[0][0])
            each.sort(key=lambda row: (-row.accuracy, row["run"]))
            by = PAIRED if paired and all(score.record for row in each for score in row.scores) else BY_INTERVALS
            apart = _apart_in_pairs(each) if by == PAIRED else _apart_by_intervals(each)
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


def _apart_in_pairs(rows: Sequence[Row]) -> np.ndarray:
    several = np.array([len(row.scores) > 1 for row in rows])
    return rows[0].kind.apart(rows) & (_apart_by_intervals(rows) | ~(several[:, None] | several))


def _apart_by_intervals(rows: Sequence[Row]) -> np.ndarray:
    means, widths = np.array([row.accuracy for row in rows]), np.array([row.ci95 for row in rows])
    return np.abs(means[:, None] - means) > np.hypot(widths[:, None], widths)
