"""Ranks: a row's rank is 1 + the number of rows of its board that are established better.

A board has the rows of the same tasks or images (`Kind.board`); rows of different boards are never compared. A rank
says how many rows are better for sure, and nothing more: rows that share one may differ, and a row whose seeds scatter
may have a better rank than a row that is more accurate. Rows of one rank are in the order of their accuracy.

Rows are separated by the kind's paired test (`Kind.apart`), which is about these networks. If one of two rows has
several seeds, its ci95 is about training again. Then the two must differ by their intervals, too, taken as
independent: half-width sqrt(a^2 + b^2). One seed does not show how much trainings scatter. Against n seeds, its
half-width is therefore taken from these, b * sqrt(n), and the pair's is b * sqrt(n + 1)
(`evaluation.statistics.apart_by_intervals`). If the records of a board's rows are not all at hand, as in a merged CSV,
the whole board is ranked by the intervals alone, two rows of one seed by those of their networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from fewshot.evaluation.statistics import apart_by_intervals, established, ranks
from fewshot.reports.boards.leaderboard import BY_INTERVALS, PAIRED, Row


def board(row: Row) -> tuple:
    """What rows that are ranked together agree in: the kind, the tasks or images, and the pixels."""
    return type(row.kind).__name__, *row.kind.board(row)


def rank(rows: Iterable[Row], paired: bool = True) -> list[Row]:
    """The rows in the order of the leaderboard, with the RANKED columns filled.

    Of a question's boards, the one with the most rows comes first, and the others say how they differ from it. With
    `paired` False, ranks by ci95 even if records are at hand.
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
            placed = zip(ranks([row.accuracy for row in each], apart), each, strict=True)
            ranked += [row.ranked(place, tasks, by) for place, row in sorted(placed, key=lambda pair: pair[0])]
    return ranked


def tied(rows: Sequence[Row]) -> set[tuple]:
    """Each (board, rank) that several of the rows share."""
    seen: set[tuple] = set()
    shared: set[tuple] = set()
    for place in ((board(row), row["rank"]) for row in rows):
        (shared if place in seen else seen).add(place)
    return shared


def _apart_in_pairs(rows: Sequence[Row]) -> np.ndarray:
    kind = rows[0].kind
    return established(kind.apart(rows), [[score.own[kind.proof] for score in row.scores] for row in rows])


def _apart_by_intervals(rows: Sequence[Row]) -> np.ndarray:
    trainings = [len(row.scores) for row in rows]
    return apart_by_intervals([row.accuracy for row in rows], [row.ci95 for row in rows], trainings)
