"""From run folders to the leaderboard's scores. A damaged run is left out and named; it does not stop the others."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

from fewshot.core.errors import UserError
from fewshot.evaluation.overlap import in_words
from fewshot.evaluation.records import at_hand, check_claims, read_accuracies
from fewshot.identity import pixels
from fewshot.reports.leaderboard import DEFAULTS, OWN, SHARED, Score, code_behind, experiment_of
from fewshot.runs import FOREIGN, Run

_NUMBERS = ("seed", "accuracy", "ci95", "train_seconds")


def gather(folder: Path) -> tuple[list[Score], dict[str, str]]:
    """Every run below `folder` that has results on test images: one score for each protocol.

    Also the runs that could not be read, by their names, and why. UserError where no run can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of your runs with --runs")
    scores, damaged = [], {}
    for name in _with(folder, "result.json"):
        place = folder / name
        try:
            scores += _scores(Run.open(place), name)
        except UserError as error:
            damaged[name] = str(error)
    if not scores and damaged:
        raise UserError(f"no run below {folder} can be read: {next(iter(damaged.values()))}")
    if not scores:
        raise UserError(f"no finished run below {folder}: train one first, or give another --runs")
    return scores, damaged


def unfinished(folder: Path) -> list[str]:
    """Names of the run folders below `folder` that have no results yet."""
    return [name for name in _with(folder, "config.json") if not (folder / name / "result.json").is_file()]


def _with(folder: Path, file: str) -> list[str]:
    """Names of the folders below `folder` that have such a file; none that a dot hides, as those being made are."""
    found = sorted(path.parent.relative_to(folder) for path in folder.rglob(file))
    return [place.as_posix() for place in found if not any(part.startswith(".") for part in place.parts)]


def _scores(run: Run, name: str) -> list[Score]:
    """One score for each protocol of the run: its longest result.

    UserError where a column cannot be filled, a file is damaged, or a figure is not what the record gives.
    """
    config, experiment, environment, summary = run.config, experiment_of(run), run.environment, run.summary
    versions = environment.get("versions", {})
    trained = {"run": name, "train_ways": config.ways, "train_shots": config.shots}
    scores = []
    for scored in run.longest:
        if scored["split"] != "test":  # validation images chose the weights
            continue
        facts: dict[str, Any] = DEFAULTS | summary | scored | versions | environment | trained
        facts["code"] = code_behind(run, [scored])
        if config.regime == FOREIGN:  # of its training nothing is known
            facts |= {"steps": "", "train_ways": "", "train_shots": "", "parameters": summary["parameters"] or ""}
        if known := pixels(scored):
            facts["fingerprint"] = known
        if scored.get("seen_in_training"):
            facts["trained_on"] += f" ({in_words(scored['seen_in_training'])} of what is tested)"
        missing = [column for column in (*SHARED, *OWN) if column not in facts]
        missing += [column for column in _NUMBERS if not isinstance(facts.get(column), (int, float))]
        if missing:
            raise UserError(f"{run.result_path} is not a result of ours (it lacks {missing[0]}); move it out of --runs")
        try:
            datetime.datetime.fromisoformat(facts["started"])
        except (ValueError, TypeError):
            raise UserError(f"{run.folder / 'environment.json'} is damaged: started is no time") from None
        if not all(math.isfinite(facts[column]) for column in _NUMBERS):
            raise UserError(f"{run.result_path} holds numbers that are not finite: the training diverged")
        if impossible := check_claims(scored):
            raise UserError(f"{run.result_path} says {impossible}, which cannot be: evaluate {run.folder} again")
        proven = at_hand(run.folder, scored)
        if proven:
            read_accuracies(run.folder, scored)  # here, where one run can be left out
        scores.append(
            Score.of(
                shared={column: str(facts[column]) for column in SHARED},
                facts=experiment,
                own={column: facts[column] for column in OWN},
                episodes=(run.folder, scored) if proven else None,
            )
        )
    return scores
