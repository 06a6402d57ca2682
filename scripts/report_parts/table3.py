"""Table 3 of the TargetDrop paper: the cells that have been trained, and how."""

from __future__ import annotations

from pathlib import Path

from fewshot.reports.sweep import markdown
from fewshot.runs import Run
from report_parts.effects import commit, found_runs


def parts(folder: Path) -> dict[str, str]:
    """The table as scripts/reproduce_table3.py wrote it, and a line on each run's training."""
    title, _, rest = (folder / "table.md").read_text("utf-8").partition("\n\n")
    assert title.startswith("# ")
    return {"table": rest.strip("\n"), "runs": training(found_runs(folder)[0])}


def training(runs: list[Run]) -> str:
    """A line for each run: its length, precision and time, and the accuracy of the same weights in its other test."""
    lines = []
    for run in runs:
        facts, others = run.environment, [row for row in run.own() if row["shots"] != run.config.shots]
        length = f"{run.steps:,}", f"{facts['best_step']:,}"
        machine = str(facts["precision"]), str(facts["threads"]), f"{facts['train_seconds'] / 3600:.1f}"
        besides = ", ".join(f"{100 * row['accuracy']:.2f} at {row['shots']}-shot" for row in others)
        lines.append((run.folder.name, *length, *machine, commit(run), besides))
    return markdown(("run", "steps", "best at step", "precision", "threads", "hours", "commit", "besides"), lines)
