"""What training tells whoever runs it. This one says nothing; `reports.progress` prints."""

from __future__ import annotations


class Reporter:
    """Override what you want to hear. All calls come from the process and thread that trains."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def begin(self, steps: int, done: int) -> None:
        """Training begins, at step `done` of `steps`."""

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Some steps were done, up to `step`; mean training loss and accuracy over them."""

    def validation(self, epoch: int, epochs: int, accuracy: dict[str, float], best: bool) -> None:
        """A validation: accuracies (fractions of 1) by their names, and whether the weights were the best so far."""

    def trained(self, seconds: float, best_accuracy: float, best_step: int) -> None:
        """Training has come to its end, after so many seconds in all; the best validation, and its step."""

    def end(self) -> None:
        """The loop has stopped, for whatever reason."""


SILENT = Reporter()
