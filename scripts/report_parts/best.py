"""The best recipe: how it was chosen, and what each of its ingredients adds, by leaving one out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot import recipes
from fewshot.core.errors import UserError
from fewshot.reports.sweep import markdown
from fewshot.reports.tables import head_name, percent
from fewshot.runs import Run
from report_parts.again import joined
from report_parts.effects import (
    Effect,
    Study,
    accuracies,
    by_label,
    commits,
    found_runs,
    gained,
    gains,
    mean,
    tested,
)

RECIPE = "best/mini-imagenet-42"


def parts(study: Study) -> dict[str, str]:
    """What the page says about the runs of `RECIPE`, alone and with the parts that leave an ingredient out.

    Raises UserError if the recipe by itself has no run.
    """
    if RECIPE not in study.runs:
        raise UserError(f"{study.folder}: no run of the recipe {RECIPE} by itself")
    tried, _ = found_runs(study.folder / "pilots")
    return {
        "pilots": pilots(tried),
        "heads": heads(tried),
        "left out": left_out(study, gains(study, RECIPE)),
        "commits": commits(by_label(study)),
        "pilots' commits": commits({run.folder.name: [run] for run in tried}),
    }


def regularized(study: Study, more: Study) -> dict[str, str]:
    """What the page says about the recipe with a regularizer, against its own runs of the same seeds.

    more: runs of the recipe with and without regularizers; `none` may have any of its seeds in `study` instead.
    """
    header = ["regularizer", "test", "seeds", "accuracy without", "with", "gain", "gain, seed by seed"]
    lines = []
    for reg, whole in joined(Study(study.folder, {"none": study.runs[RECIPE]}, {}), more).items():
        for effect in whole.effects:
            both = (mean(accuracies(whole, name, effect.test, list(effect.each))) for name in ("none", reg))
            each = ", ".join(f"{100 * gain:+.2f}" for gain in effect.each.values())
            lines.append([reg, effect.test, str(len(effect.each)), *both, gained(effect), each])
    return {"gains": markdown(header, lines), "commits": commits(by_label(more))}


def left_out(study: Study, effects: Sequence[Effect]) -> str:
    """The recipe's accuracy, and that without each ingredient, with the difference."""
    tests = sorted(tested(next(iter(study.runs[RECIPE].values()))))
    header = ["left out", "seeds"]
    whole = ["nothing", str(len(study.runs[RECIPE]))]
    for test in tests:
        header += [test, "difference"]
        whole += [mean(accuracies(study, RECIPE, test)), ""]
    lines: list[tuple[float, list[str]]] = []
    for recipe in dict.fromkeys(effect.reg for effect in effects):
        own = {effect.test: effect for effect in effects if effect.reg == recipe}
        line = [about(recipe), str(len(study.runs[recipe]))]
        for test in tests:
            line += [mean(accuracies(study, recipe, test)), gained(own[test])]
        lines.append((own[tests[-1]].seen.estimate, line))
    return markdown(header, [whole, *(line for _, line in sorted(lines))])


def about(recipe: str) -> str:
    """What a part of the recipe leaves out, as the first line of its file says."""
    first = recipes.about(recipes.parts(recipe)[-1]).splitlines()[0]
    return first.removeprefix(f"Behind {RECIPE}, leaves out ").removesuffix(".")


def pilots(runs: Sequence[Run]) -> str:
    """Each pilot's validation accuracy at its best step; the best first."""
    found = {run.folder.name.rpartition("-seed")[0]: selected(run) for run in runs}
    if len(found) < len(runs):
        raise UserError("a pilot has several seeds: the page says that each has one")
    tests = sorted({test for figures in found.values() for test in figures}, reverse=True)  # 5-shot selects
    ranked = sorted(found, key=lambda name: [-found[name][test] for test in tests])
    lines = [[name, *(f"{100 * found[name][test]:.2f}" for test in tests)] for name in ranked]
    return markdown(["pilot", *(f"validation, {test}" for test in tests)], lines)


def heads(runs: Sequence[Run]) -> str:
    """The validation accuracy of each head that was tried on a pilot's embeddings; inductive heads first.

    Raises UserError if a head was tried on two pilots: the table has one line for each head.
    """
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for run in runs:
        for row in run.own("val", any_head=True):
            of_head = found.setdefault((row["setting"], head_name(row)), {})
            if row["shots"] in of_head:
                raise UserError(f"{run.folder}: {head_name(row)} was tried on another pilot, too; keep one of the two")
            of_head[row["shots"]] = row
    shots = sorted({number for rows in found.values() for number in rows}, reverse=True)  # 5-shot selects
    lines = []
    for setting, head in sorted(found, key=lambda name: (name[0], [-found[name][n]["accuracy"] for n in shots])):
        rows = found[setting, head]
        lines.append([head, setting, *(percent(rows[n]["accuracy"], rows[n]["ci95"]) for n in shots)])
    return markdown(["head", "setting", *(f"validation, {number}-shot" for number in shots)], lines)


def selected(run: Run) -> dict[str, float]:
    """The validation figures of the weights that a run kept, by test: `5-shot`."""
    chosen = [row["validation"] for row in run.metrics() if row.get("best")][-1]
    return {f"{name.removesuffix('shot')}-shot": share for name, share in chosen.items()}
