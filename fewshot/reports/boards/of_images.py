"""Classification results on the leaderboard: a row for each configuration and data set.

The columns, all of them strings, in the order of the CSV:

    rank                within the rows of the same images; 1 + the rows established better (ranking.py)
    dataset, classes, images                what was tested: all images of the test split
    backbone, classifier, regularizer       components; the classifier is linear or cosine
    top1, ci95_low, ci95_high               top-1 accuracy and the interval named in ci_method; per cent, two decimals
    error, top5         per cent; top5 is empty if there are five classes or fewer
    seeds               number of training seeds behind the row
    train_seconds, device, parameters, recipe, commit, fingerprint, run, ci_method, seed, steps, precision, python,
    torch, numpy, membership, trained_on, tasks, rank_by, key, each_run, code, csv_version
                        as in few-shot rows (reports/boards/of_tasks.py); tasks is `common` or `other pixels`

The interval of one seed is Wilson's: this network on other images of these classes. A board has the rows of the same
data set, classes and pixels; rows whose training saw some of these images have a board of their own. Two networks are
told apart by McNemar's test. If a row has several seeds, an image's value is the mean over its networks, and the test
is the paired t-test over images. Both tests use Holm's correction over all pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewshot.evaluation.image_comparison import distinguishable
from fewshot.evaluation.verdicts import at_hand, guessed, read
from fewshot.identity import pixels
from fewshot.reports.boards.leaderboard import (
    RANK,
    RANKING,
    SEEDS_METHOD,
    SEEN,
    Columns,
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
from fewshot.reports.tables import number, training_time
from fewshot.runs import Run

COLUMNS = (
    "rank", "dataset", "classes", "images", "backbone", "classifier", "regularizer", "top1", "ci95_low", "ci95_high",
    "error", "top5", "seeds", "train_seconds", "device", "parameters", "recipe", "commit", "fingerprint", "run",
    "ci_method", "seed", "steps", "precision", "python", "torch", "numpy", "membership", "trained_on", "tasks",
    "rank_by", "key", "each_run", "code", "csv_version",
)  # fmt: skip
SHARED = (
    "dataset", "classes", "images", "fingerprint", "membership", "backbone", "classifier", "regularizer", "steps",
    "parameters", "precision", "trained_on", "code",
)  # fmt: skip
OWN = (
    "seed", "run", "started", "top1", "top1_ci95", "top5", "ci_method", "train_seconds", "recipe", "device", "commit",
    "python", "torch", "numpy",
)  # fmt: skip
_NUMBERS = ("seed", "top1", "train_seconds")


class Images(Kind):
    """Top-1 accuracies of classifiers."""

    columns, shared, own = COLUMNS, SHARED, OWN
    defaults: Mapping[str, str] = {"code": ""}
    evidence = ("dataset", "fingerprint", "backbone", "classifier", "regularizer")
    proof = "top1"
    numbers = ("rank", "top-1 (%)", "error (%)", "top-5 (%)", "seeds", "steps", "time", "parameters")
    terminal = ("rank", "regularizer", "backbone", "steps", "seeds", "top-1 (%)")
    about = (
        "Classification: each test image is named by the classifier that was trained, among all classes. The figures"
        " are per cent; in brackets the 95% interval of top-1 accuracy, whose formula is below each table. That of"
        " a row of one training seed is of this network on other images of these classes; that of several seeds is of"
        f" what training again gives on average, on these images. {RANK}"
        " These figures are of another kind than few-shot accuracies and never ranked beside them."
    )

    def scores(self, run: Run, name: str) -> list[Score]:
        """See Kind.scores."""
        scores = []
        for row in run.classification:
            if row["split"] != "test":  # validation images chose the weights
                continue
            environment, experiment = run.environment, experiment_of(run)
            facts: dict[str, Any] = run.summary | row | environment.get("versions", {}) | environment
            facts |= {"run": name, "code": code_behind(run, []), "fingerprint": pixels(row), "top5": row.get("top5")}
            facts["trained_on"] = trained_on(run, row)
            check_numbers(run, facts, (*SHARED, *OWN), _NUMBERS)
            proven = at_hand(run.folder, row)
            if proven:
                read(run.folder, row)  # here, where one run can be left out
            shared = {column: str(facts[column]) for column in SHARED}
            own = {column: facts[column] for column in OWN}
            scores.append(Score.of(self, shared, experiment, own, record=(run.folder, row) if proven else None))
        return scores

    def figures(self, own: Sequence[Mapping[str, Any]]) -> tuple[float, float, dict[str, str]]:
        """See Kind.figures."""
        if len(own) == 1:
            top1, (low, high), method = (own[0][name] for name in ("top1", "top1_ci95", "ci_method"))
        else:
            (top1, half), method = mean_over_seeds([run["top1"] for run in own]), SEEDS_METHOD
            low, high = top1 - half, top1 + half
        shown = {"top1": top1, "ci95_low": low, "ci95_high": high, "error": 1 - top1}
        columns = {name: f"{100 * value:.2f}" for name, value in shown.items()}
        top5 = [run["top5"] for run in own]
        columns["top5"] = "" if None in top5 else f"{100 * sum(top5) / len(top5):.2f}"
        return top1, (high - low) / 2, columns | {"ci_method": method}

    def at_chance(self, row: Row) -> bool:
        """See Kind.at_chance."""
        return any(guessed(score.own | {"classes": int(row["classes"])}) for score in row.scores)

    def question(self, row: Columns) -> tuple:
        """See Kind.question."""
        return row["dataset"], int(row["classes"]), int(row["images"]), trained_on_the_tested(row)

    def board(self, row: Columns) -> tuple:
        """See Kind.board."""
        return *self.question(row), row["membership"], row["fingerprint"]

    def differs(self, row: Row, most: Row) -> str:
        """See Kind.differs."""
        return "common" if self.board(row) == self.board(most) else "other pixels"

    def apart(self, rows: Sequence[Row]) -> np.ndarray:
        """See Kind.apart."""
        right = [[read(*score.record).top1 for score in row.scores if score.record] for row in rows]
        return distinguishable(right)

    def title(self, row: Row) -> str:
        """`fashion-mnist, 10 classes`, what is special, and whether its pixels differ from those of most rows."""
        name = f"{row['dataset']}, {row['classes']} classes" + f", {SEEN}" * trained_on_the_tested(row)
        return name if row["tasks"] == "common" else f"{name} ({row['tasks']})"

    def cells(self, row: Row, equal: bool) -> dict[str, str]:
        """See Kind.cells."""
        return {
            "rank": row["rank"] + "=" * equal, "regularizer": row["regularizer"], "backbone": row["backbone"],
            "classifier": row["classifier"], "seeds": row["seeds"],
            "top-1 (%)": f"{row['top1']} ({row['ci95_low']} .. {row['ci95_high']})" + " at chance" * row.at_chance,
            "error (%)": row["error"], "top-5 (%)": row["top5"], "trained on": row["trained_on"],
            "steps": number(row["steps"]), "time": training_time(row.columns),
            "parameters": number(row["parameters"]), "run": row["run"],
        }  # fmt: skip

    def how(self, rows: Sequence[Row]) -> str:
        """See Kind.how."""
        first = rows[0]
        methods = ", or ".join(dict.fromkeys(row["ci_method"] for row in rows))
        test = "McNemar's test, of several seeds a paired t-test over the images"
        ranks = RANKING[first["rank_by"]].format(test=test)
        return f"{int(first['images']):,} test images. Interval: {methods}. Ranks by {ranks}."


IMAGES = Images()
