"""What training changes, and what it leaves of that in its run folder. Of several processes, only the first writes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from fewshot.core.crew import Crew
from fewshot.core.errors import UserError
from fewshot.learning import checkpoint
from fewshot.learning.checkpoint import Progress
from fewshot.learning.optimizer import check_state
from fewshot.model import Model
from fewshot.runs import Log, Run


@dataclass(frozen=True)
class Parts:
    """What training changes, and a checkpoint holds."""

    model: Model
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    def state(self) -> dict[str, Any]:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state | ({"average": self.average.state_dict()} if self.average else {})

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        check_state(self.optimizer, state["optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])

    @property
    def judged(self) -> Model:
        """The model that is validated, and whose weights are kept."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, Model)
        return self.average.module


class Keeper:
    """Metrics, checkpoints and the best weights of a run."""

    def __init__(self, run: Run, parts: Parts, crew: Crew) -> None:
        self.run, self.parts, self.crew = run, parts, crew

    def start(self) -> Progress:
        """Where to begin, together. Raises UserError if a file is not what the checkpoint counts on.

        All processes get the state of the first, whatever their own weights.
        """
        progress = self._read() if self.crew.first else Progress()
        if self.crew.several:
            told = self.crew.tell(lambda: bytes(checkpoint.dump(self.parts.state(), progress, "")))
            if not self.crew.first:
                progress = checkpoint.parse(told, self.parts.load, "")
        return progress

    def _read(self) -> Progress:
        """The state of the checkpoint, and the metrics up to there."""
        run = self.run
        if not run.checkpoint_path.is_file():
            run.drop_spare()
            self._metrics = Log(run.metrics_path)
            run.note_begun_anew(self._metrics)
            return Progress()
        progress = checkpoint.load(run.checkpoint_path, self.parts.load, run.identity, run.sealed)
        run.bring_back(progress.best_sha256, progress.best_step)
        if progress.best_sha256:
            run.check_weights(progress.step, progress.best_sha256)
        self._metrics = Log(run.metrics_path, progress.metrics_bytes, progress.metrics_sha256)
        return progress

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Add to the metrics."""
        if self.crew.first:
            self._metrics.append(rows)

    def keep_best(self, progress: Progress) -> None:
        """Write the current weights: they are the best so far."""
        if self.crew.first:
            progress.best_sha256 = self.run.keep_weights(self.parts.judged.serialised(), progress.step)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint."""
        if not self.crew.first:
            return
        self._metrics.sync()
        progress.metrics_bytes, progress.metrics_sha256 = self._metrics.length, self._metrics.digest
        checkpoint.save(self.run.checkpoint_path, self.parts.state(), progress, self.run.identity)
        self.run.drop_spare()
        self.run.note_metrics(self._metrics)

    def check_same(self) -> None:
        """Raises UserError if the processes' models or moving averages are no longer the same, together: all should
        have taken the same steps."""
        if not self.crew.several:
            return
        digest = hashlib.sha256()
        for part in (self.parts.model, *([self.parts.average] if self.parts.average else [])):
            for tensor in part.state_dict().values():
                digest.update(tensor.reshape(-1).view(torch.uint8).cpu().numpy())
        if self.crew.tell(digest.hexdigest) != digest.hexdigest():
            raise UserError(
                f"process {self.crew.rank} has other weights than the first one: some parameters had a gradient in one"
                " and none in the other, or their devices are of different kinds; train in one process"
            )
