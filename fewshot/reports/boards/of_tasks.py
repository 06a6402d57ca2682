"""Few-shot results on the leaderboard: a row for each configuration and protocol.

The columns, all of them strings, in the order of the CSV:

    rank                within the rows of the same tasks; 1 + the rows established better (ranking.py)
    dataset, ways, shots                    what was tested (test split)
    backbone, head, regularizer             components as written on the command line
    accuracy, ci95      per cent, two decimals; half-width of the interval named in ci_method
    episodes            test episodes             seeds           number of training seeds behind the row
    train_seconds       wall time of a training   device          where it was trained
    parameters          of the embedding network  recipe, commit  how it was made
    fingerprint         of the test set's pixels (`identity.pixels`)    episodes_digest  of the test episodes
    run                 folder, relative to --runs; several in the shell's notation, runs/seed{0,1}
    queries, ci_method, seed, steps, precision, python, torch, numpy, membership    more provenance
    trained_on, train_ways, train_shots     data set and episodes of the training (empty if it had no episodes);
                        after the data set, in brackets, how many of the tested classes and images were trained on, if
                        any. Such rows are ranked separately
    tasks               `common`, or how the row's tasks differ from those of most rows of that data set, ways and
                        shots: `other queries`, `other episodes`, `other pixels`. Their ranks start at 1 again
    rank_by             what decides which rows are better: `paired differences`, or `ci95`
    key                 two digests of what the row's runs agree in: one of its columns, one of the rest
    each_run            JSON: what every run of the row adds to it, so that rows can be merged later
    setting             inductive, or transductive: the head saw all queries of a task at once. Ranked separately
    transform           of the embeddings, before the head; `none` if there is none
    code                short digest of the source files that trained; empty if the run recorded none
    csv_version         the version of this file's format that made the row (reports/boards/as_csv.py)
    query_alpha         concentration of the Dirichlet distribution that numbers of queries are drawn from (then
                        `queries` is their mean); empty for balanced tasks. Ranked separately. Only in files that have
                        such a row
    regime              the regime of the training, as written; empty for episodes, and for networks trained elsewhere.
                        Only in files that have such a row
    episodes_seed       seed of the user's own list of tasks; empty for 0, that of the standard tasks. Ranked
                        separately. Only in files that have such a row

The interval of one seed is the field's, of this network on this test set. It says nothing about new images or classes.

A board has the rows of the same tasks: data set, ways, shots, setting, queries, episodes and pixels. Transductive rows
have a board of their own, because they use the other queries of a task, which inductive rows may not. Rows of
unbalanced tasks have one, too. Rows are told apart by the paired test over episodes
(`evaluation.statistics.distinguishable`); an episode's accuracy is the mean over the row's seeds. The test is paired
because what is hard about a task is hard for both rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.records import at_hand, check_claims, read_accuracies
from fewshot.evaluation.statistics import at_chance, distinguishable
from fewshot.identity import pixels
from fewshot.reports.boards.leaderboard import (
    RANK,
    RANKING,
    SEEDS_METHOD,
    SEEN,
    Columns,
    Former,
    Kind,
    Row,
    Score,
    check_numbers,
    code_behind,
    experiment_of,
    mean_over_seeds,
    trained_on,
    trained_on_the_tested,
)
from fewshot.reports.tables import DEFAULTS, head_name, number, queries_a_class, task_name, training_time
from fewshot.runs import FOREIGN, Run

COLUMNS = (
    "rank", "dataset", "ways", "shots", "backbone", "head", "regularizer", "accuracy", "ci95", "episodes", "seeds",
    "train_seconds", "device", "parameters", "recipe", "commit", "fingerprint", "episodes_digest", "run",
    "queries", "ci_method", "seed", "steps", "precision", "python", "torch", "numpy", "membership",
    "trained_on", "train_ways", "train_shots", "tasks", "rank_by", "key", "each_run",
    "setting", "transform", "code", "csv_version", "query_alpha", "regime", "episodes_seed",
)  # fmt: skip
OPTIONAL = ("query_alpha", "regime", "episodes_seed")  # left out of a file if no row has it
SHARED = (
    "dataset", "ways", "shots", "queries", "episodes", "episodes_digest", "fingerprint", "membership", "backbone",
    "head", "regularizer", "steps", "parameters", "precision", "trained_on", "train_ways", "train_shots",
    "setting", "transform", "code", "query_alpha", "regime", "episodes_seed",
)  # fmt: skip
OWN = (
    "seed", "run", "started", "accuracy", "ci95", "ci_method", "train_seconds", "recipe", "device", "commit", "python",
    "torch", "numpy",
)  # fmt: skip
_OLD = ("setting", "transform", "code", "csv_version", *OPTIONAL)  # not in version 1
_NUMBERS = ("seed", "accuracy", "ci95", "train_seconds")


class FewShot(Kind):
    """Accuracies in tasks."""

    columns, optional, shared, own = COLUMNS, OPTIONAL, SHARED, OWN
    defaults = DEFAULTS
    task_list = ("episodes", "episodes_digest")
    evidence = (
        "dataset", "ways", "shots", "queries", "episodes_digest", "fingerprint", "backbone", "head", "regularizer",
    )  # fmt: skip
    proof = "accuracy"
    former = Former(
        tuple(column for column in COLUMNS if column not in _OLD),
        (*(column for column in SHARED if column not in _OLD), "recipe"),
        defaults | {"csv_version": "1"},
    )
    numbers = ("rank", "accuracy (%)", "seeds", "steps", "time", "parameters")
    terminal = ("rank", "regularizer", "backbone", "head", "steps", "seeds", "accuracy (%)")
    about = (
        "An N-way K-shot task: sort new images into N classes, after K labelled images of each. The figures are test"
        " accuracy in per cent, the mean over the episodes, ± the half-width of its 95% interval; its formula is"
        " below each table. The interval of a row of one training seed is of this network on this test set; that of"
        " several seeds is of what training again gives on average, on these tasks. Neither speaks of new images or"
        f" new classes. {RANK}"
    )

    def scores(self, run: Run, name: str) -> list[Score]:
        """See Kind.scores."""
        config, experiment, environment, summary = run.config, experiment_of(run), run.environment, run.summary
        versions = environment.get("versions", {})
        trained = {"run": name, "train_ways": config.ways, "train_shots": config.shots}
        scores = []
        for scored in run.rows:
            if scored["split"] != "test":  # validation images chose the weights
                continue
            facts: dict[str, Any] = DEFAULTS | summary | scored | versions | environment | trained
            facts["code"] = code_behind(run, [scored])
            facts["episodes_seed"] = scored["episodes_seed"] or ""
            if config.regime == FOREIGN:  # nothing is known of its training
                facts |= {"steps": "", "train_ways": "", "train_shots": "", "parameters": summary["parameters"] or ""}
            elif config.regime.partition(":")[0] != "episodic":
                facts |= {"regime": config.regime, "train_ways": "", "train_shots": ""}
            if known := pixels(scored):
                facts["fingerprint"] = known
            facts["trained_on"] = trained_on(run, scored)
            check_numbers(run, facts, (*SHARED, *OWN), _NUMBERS)
            if impossible := check_claims(scored):
                raise UserError(f"{run.result_path} says {impossible}, which cannot be: evaluate {run.folder} again")
            proven = at_hand(run.folder, scored)
            if proven:
                read_accuracies(run.folder, scored)  # here, where one run can be left out
            shared = {column: str(facts[column]) for column in SHARED}
            own = {column: facts[column] for column in OWN}
            record = (run.folder, scored) if proven else None
            scores.append(Score.of(self, shared, experiment, own, record=record))
        return scores

    def figures(self, own: Sequence[Mapping[str, Any]]) -> tuple[float, float, dict[str, str]]:
        """See Kind.figures."""
        if len(own) == 1:
            accuracy, ci95, method = (own[0][name] for name in ("accuracy", "ci95", "ci_method"))
        else:
            (accuracy, ci95), method = mean_over_seeds([run["accuracy"] for run in own]), SEEDS_METHOD
        shown = {"accuracy": f"{100 * accuracy:.2f}", "ci95": f"{100 * ci95:.2f}", "ci_method": method}
        return accuracy, ci95, shown

    def at_chance(self, row: Row) -> bool:
        """See Kind.at_chance: its interval reaches down to 1 / ways."""
        ways = int(row["ways"])
        return any(at_chance(score.own["accuracy"], score.own["ci95"], ways) for score in row.scores)

    def question(self, row: Columns) -> tuple:
        """See Kind.question."""
        task = row["dataset"], int(row["ways"]), int(row["shots"]), float(row["query_alpha"] or 0), row["setting"]
        return *task, trained_on_the_tested(row), int(row["episodes_seed"] or 0)

    def board(self, row: Columns) -> tuple:
        """See Kind.board."""
        return *self.question(row), int(row["queries"]), row["episodes_digest"], row["fingerprint"]

    def differs(self, row: Row, most: Row) -> str:
        """See Kind.differs."""
        for column, word in (("queries", "queries"), ("episodes_digest", "episodes"), ("fingerprint", "pixels")):
            if row[column] != most[column]:
                return f"other {word}"
        return "common"

    def apart(self, rows: Sequence[Row]) -> np.ndarray:
        """See Kind.apart."""
        episodes = np.empty((len(rows), int(rows[0]["episodes"])))  # filled in place: thousands of rows are not copied
        for values, row in zip(episodes, rows, strict=True):
            values[:] = _episodes(row)
        return distinguishable(episodes)

    def title(self, row: Row) -> str:
        """`mini-imagenet 5-way 1-shot`, what is special about it, and how its tasks differ from those of most rows."""
        name = f"{row['dataset']} {task_name(row.columns)}"
        name += f", {SEEN}" if trained_on_the_tested(row) else ""
        return name if row["tasks"] == "common" else f"{name} ({row['tasks']})"

    def cells(self, row: Row, equal: bool) -> dict[str, str]:
        """See Kind.cells."""
        return {
            "rank": row["rank"] + "=" * equal, "regularizer": row["regularizer"], "backbone": row["backbone"],
            "head": head_name(row.columns), "seeds": row["seeds"],
            "accuracy (%)": f"{row['accuracy']} ± {row['ci95']}" + " at chance" * row.at_chance,
            "trained on": _trained_on(row),
            "steps": number(row["steps"]), "time": training_time(row.columns),
            "parameters": number(row["parameters"]), "run": row["run"],
        }  # fmt: skip

    def how(self, rows: Sequence[Row]) -> str:
        """See Kind.how."""
        first = rows[0]
        methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
        ranks = RANKING[first["rank_by"]].format(test="a paired t-test over the episodes")
        episodes = f"{int(first['episodes']):,} episodes of {queries_a_class(first.columns)}"
        return f"{episodes}. Interval: {methods}. Ranks by {ranks}."


FEWSHOT = FewShot()


def _episodes(row: Row) -> np.ndarray:
    """Accuracy of each episode (n,), mean over the row's seeds."""
    accuracies = [read_accuracies(*score.record) for score in row.scores if score.record]
    return accuracies[0] if len(accuracies) == 1 else np.mean(accuracies, axis=0)


def _trained_on(row: Row) -> str:
    """The data set and, if we trained it, the form of the training tasks, or the regime if it has none."""
    if row["steps"] == "0":
        return "nothing here"
    tasks = f"{row['train_ways']}-way {row['train_shots']}-shot" if row["train_shots"] else row["regime"]
    return f"{row['trained_on']} {tasks}".rstrip()
