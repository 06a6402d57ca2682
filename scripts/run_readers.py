"""Everything that reads a run folder: for tests, and for scripts/fuzz.py."""

from __future__ import annotations

from pathlib import Path

import fewshot
from fewshot.core.errors import UserError
from fewshot.evaluation import verdicts
from fewshot.learning import checkpoint
from fewshot.reports import pictures
from fewshot.reports.boards import gathering
from fewshot.reports.comparisons.entries import Finished
from fewshot.runs import Run


def read_it_all(folder: Path) -> list[str]:
    """Call every reader of a run folder; returns what they refused. Anything not refused in one line is our error."""
    run, refused = Run.open(folder), []
    readers = (
        lambda: run.config, lambda: run.resolved, lambda: run.images, lambda: run.environment, lambda: run.rows,
        lambda: run.longest, lambda: run.code_digest, lambda: run.summary, lambda: run.trained, lambda: run.finished,
        lambda: [verdicts.read(folder, row) for row in run.classification],
        lambda: pictures.read_curves(run), lambda: gathering.gather(folder.parent),
        lambda: gathering.unfinished(folder.parent), lambda: Finished.load(str(folder)),
        lambda: fewshot.load(folder, device="cpu"), lambda: resume(run),
    )  # fmt: skip
    for reader in readers:
        try:
            reader()
        except UserError as error:
            refused.append(str(error))
    return refused


def resume(run: Run) -> None:
    if run.checkpoint_path.exists():  # otherwise training starts again
        checkpoint.load(run.checkpoint_path, lambda state: None, run.identity, run.sealed)
