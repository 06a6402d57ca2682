"""Training as the terminal shows it: a live bar on a screen, sparse lines in a log file."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fewshot.learning.reporter import Reporter
from fewshot.runs import Run

_LINE_EVERY = 30.0  # seconds, if there is no screen
_SETTLED = 30  # steps after which an estimate is worth saying: the first ones are slow
_LONG = 3600.0  # seconds from which a run is announced as long


class ConsoleReporter(Reporter):
    """Prints to `console`. `shorter` is said if the estimate exceeds an hour."""

    def __init__(self, console: Console, shorter: str = "") -> None:
        self.console, self.shorter = console, shorter
        self.bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", figures="", visible=False)
        self.total = self.first = 0
        self.began = self.last_line = 0.0
        self.announced = False

    def say(self, text: str) -> None:
        self.console.print(text)

    def begin(self, run: Run, steps: int, done: int) -> None:
        self.total, self.first, self.announced = steps, done, False
        self.began = self.last_line = time.perf_counter()
        self.bar.reset(self.task, total=steps, completed=done, figures="", visible=True)
        self.bar.start()

    def step(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        left = (time.perf_counter() - self.began) / max(1, step - self.first) * (self.total - step)
        if step - self.first >= _SETTLED:
            self.announce(left)
        figures = f"loss {loss:.3f}  accuracy {100 * accuracy:.1f}%  {images_per_second:.0f} images/s"
        self.bar.update(self.task, completed=step, figures=figures)
        if not self.console.is_terminal and time.perf_counter() - self.last_line > _LINE_EVERY:
            self.last_line = time.perf_counter()
            self.console.print(f"step {step}/{self.total}  {figures}  {duration(left)} left")

    def validation(self, epoch: int, epochs: int, accuracy: dict[str, float], best: bool) -> None:
        self.validated(f"epoch {epoch}/{epochs}", accuracy, best)

    def validated(self, when: str, accuracy: dict[str, float], best: bool) -> None:
        """A line on a validation."""
        figures = "  ".join(f"{name} {100 * value:.2f}%" for name, value in accuracy.items())
        self.console.print(f"{when}  validation: {figures}{'  best so far' * best}")

    def trained(self, seconds: float, best_accuracy: float, best_step: int) -> None:
        best = f"best validation {100 * best_accuracy:.2f}% at step {best_step}"
        self.console.print(f"Trained in {duration(seconds)}; {best}.")

    def end(self) -> None:
        self.bar.stop()

    def announce(self, left: float) -> None:
        """Say once, as soon as the speed is known, how long training will take, if that is long."""
        if not self.announced and left > _LONG:
            self.console.print(f"This will take about {duration(left)} on this device. {self.shorter}")
        self.announced = True


def duration(seconds: float) -> str:
    """45s, 3m20s or 2h05m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
