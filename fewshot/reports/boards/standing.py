"""Which of the scores that were gathered count, and which are left out.

**Copies.** A copy of a run is the same run, wherever it lies, and counts once.

**Repeated runs.** Of several runs with the same configuration and seed, the newest counts: the same seed again is no
new evidence.

**Lists of tasks.** A run that was tested on 10,000 tasks, and then on 12,000, is ranked on one of the two lists: the
one that most runs have in common.
"""

from __future__ import annotations

from collections.abc import Iterable

from fewshot.reports.boards.leaderboard import VERSION, Score, columns_digest


def merge(scores: Iterable[Score]) -> list[Score]:
    """One score for each run and question, the last of several: a copy of a run is the same run.

    A score of an older version is left out if the same run is there in this version, too.
    """
    unique = {(score.key, score.own["seed"], score.own["started"]): score for score in scores}.values()
    renewed = {_evidence(score) for score in unique if score.version == VERSION}
    return [score for score in unique if score.version == VERSION or _evidence(score) not in renewed]


def _evidence(score: Score) -> tuple:
    """What no two runs share, in any version's columns."""
    shared = [score.shared[column] for column in score.kind.evidence]
    return *shared, *(score.own[column] for column in ("seed", "started", score.kind.proof))


def newest(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """The scores that count, and those that a newer run with the same configuration and seed replaces."""
    last: dict[tuple, Score] = {}
    left_out: list[Score] = []
    for score in sorted(scores, key=lambda score: score.own["started"]):
        one = score.key, score.own["seed"]
        left_out += [last[one]] if one in last else []
        last[one] = score
    return list(last.values()), left_out


def on_common_tasks(scores: Iterable[Score]) -> tuple[list[Score], list[Score]]:
    """The scores that count, and those of the same trainings on lists of tasks that fewer trainings share.

    A training that answered a question on several lists goes to the board that most trainings could be on; if two
    boards could have equally many, to that of the longer list.
    """
    lists: dict[tuple, list[Score]] = {}
    sharing: dict[tuple, set[tuple]] = {}
    for score in scores:
        others = {column: value for column, value in score.shared.items() if column not in score.kind.task_list}
        lists.setdefault((score.kind, columns_digest(score.kind, others), score.training), []).append(score)
        sharing.setdefault((score.kind, score.kind.board(score.shared)), set()).add(score.training)

    def reach(score: Score) -> tuple:
        length_and_digest = [score.shared[column].zfill(8) for column in score.kind.task_list]  # sorted like numbers
        return len(sharing[score.kind, score.kind.board(score.shared)]), length_and_digest

    ordered = [sorted(same, key=reach, reverse=True) for same in lists.values()]
    return [same[0] for same in ordered], [score for same in ordered for score in same[1:]]


def different_code(scores: Iterable[Score]) -> list[list[Score]]:
    """Lists of scores that differ in nothing but the seed and the code that trained them."""
    groups: dict[tuple, list[Score]] = {}
    for score in scores:
        without = columns_digest(score.kind, score.shared | {"code": ""})
        groups.setdefault((score.version, without, score.experiment), []).append(score)
    return [group for group in groups.values() if len({score.shared["code"] for score in group}) > 1]
