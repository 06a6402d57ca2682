"""What a person sees while a network trains: a live bar on a terminal, sparse lines in a log file."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 30.0  # seconds, where there is no terminal
_SETTLED = 30  # steps after which an estimate is worth saying: the first ones are slow
_LONG = 3600.0  # seconds from which a run is announced as long


class Display:
    """Prints progress to `console`. `shorter` is said where the estimate exceeds an hour."""

    def __init__(self, console: Console, shorter: str = "") -> None:
        self.console, self.shorter = console, shorter
        self.bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = None
        self.total = self.first = self.last_line = 0
        self.began = 0.0
        self.announced = False

    def begin(self, total: int, done: int) -> None:
        self.total, self.first = total, done
        self.began = self.last_line = time.perf_counter()
        self.task = self.bar.add_task("", total=total, completed=done, figures="")

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, step: int, loss: float, accuracy: float, speed: float) -> None:
        left = (time.perf_counter() - self.began) / max(1, step - self.first) * (self.total - step)
        if step - self.first >= _SETTLED:
            self._announce(left)
        figures = f"loss {loss:.3f}  accuracy {100 * accuracy:.1f}%  {speed:.0f} images/s"
        self.bar.update(self.task, completed=step, figures=figures)
        if not self.console.is_terminal and time.perf_counter() - self.last_line > _LINE_EVERY:
            self.last_line = time.perf_counter()
            self.console.print(f"step {step}/{self.total}  {figures}  {duration(left)} left")

    def validation(self, epoch: int, epochs: int, accuracy: dict[str, float], best: bool) -> None:
        figures = "  ".join(f"{name} {100 * value:.2f}%" for name, value in accuracy.items())
        mark = "  best so far" if best else ""
        self.console.print(f"epoch {epoch}/{epochs}  validation: {figures}{mark}")

    def _announce(self, left: float) -> None:
        """Once, as soon as the speed is known."""
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
