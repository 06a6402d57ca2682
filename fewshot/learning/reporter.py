"""What training tells whoever runs it. `Reporter` says nothing; `reports.following` prints."""

from __future__ import annotations

import warnings

from fewshot.runs import Run


class Reporter:
    """Override what you want to hear. All calls come from the process and thread that trains."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def begin(self, run: Run, steps: int, done: int) -> None:
        """Training begins in `run`, at step `done` of `steps`. Its metrics.jsonl holds the lines up to there."""

    def step_begins(self, step: int) -> None:
        """Step `step` (counted from 0) begins. Called for each step: do little here."""

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Some steps, up to `step`, are done and logged; mean training loss and accuracy over them."""

    def validation(self, epoch: int, epochs: int, accuracy: dict[str, float], best: bool) -> None:
        """A validation: accuracies (fractions of 1) by their names, and whether the weights were the best so far."""

    def trained(self, seconds: float, best_accuracy: float, best_step: int) -> None:
        """Training is complete, after so many seconds in all; the best validation, and its step."""

    def end(self) -> None:
        """The loop has stopped, for whatever reason."""


class Forwarding(Reporter):
    """Passes all that it hears on to another reporter; a subclass that wants to listen overrides some of it."""

    def __init__(self, to: Reporter) -> None:
        self.to = to

    def say(self, text: str) -> None:
        self.to.say(text)

    def begin(self, run: Run, steps: int, done: int) -> None:
        self.to.begin(run, steps, done)

    def step_begins(self, step: int) -> None:
        self.to.step_begins(step)

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        self.to.step(step, loss, accuracy, images_per_second)

    def validation(self, epoch: int, epochs: int, accuracy: dict[str, float], best: bool) -> None:
        self.to.validation(epoch, epochs, accuracy, best)

    def trained(self, seconds: float, best_accuracy: float, best_step: int) -> None:
        self.to.trained(seconds, best_accuracy, best_step)

    def end(self) -> None:
        self.to.end()


class Quiet(Reporter):
    """For calls from Python: says nothing but warnings, as Python warnings."""

    def say(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("Warning: "):
                warnings.warn(line.removeprefix("Warning: "), stacklevel=3)  # of experiment.run's caller, mostly


SILENT = Reporter()
QUIET = Quiet()
