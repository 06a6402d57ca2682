"""What metrics.jsonl holds, also in TensorBoard's and Weights & Biases' own files: `train --log tensorboard,wandb`.

Every number of a line keeps its name there: `loss`, or `validation/1shot` for one in an object within the line; true
is 1. Each logger imports its package when it is made. A logger changes nothing in a run, and if it fails, training
goes on without it.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewshot import config as configs
from fewshot.core.errors import UserError, unknown
from fewshot.learning.reporter import Forwarding, Reporter
from fewshot.runs import Run
from fewshot.runs.metrics import Follower

_COUNT = "fewshot-lines.txt"


class Logger:
    """Writes lines of metrics.jsonl elsewhere."""

    def __init__(self, run: Run) -> None:
        """Begin the log of a run, or go on with it."""

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the next lines. The first call begins with the very first: a run that goes on repeats what it has."""
        raise NotImplementedError

    def close(self) -> None:
        """No more lines come from this process."""


class TensorBoard(Logger):
    """RUN/tensorboard: one file of events, made again from metrics.jsonl whenever training goes on.

    So it has each line once, whatever an earlier process left. Its first event makes TensorBoard forget what it has
    read of older files. An event's time is when it was written here. Records are written by TensorBoard's own code,
    but not by its thread, because a failure there would print a traceback.
    """

    def __init__(self, run: Run) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._records = event_pb2.Event, summary_pb2.Summary, RecordWriter
        folder = run.folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        former = list(folder.glob("events.out.tfevents.*"))
        self._path = folder / f"events.out.tfevents.{time.time_ns() / 1e9:.9f}.{socket.gethostname()}.{os.getpid()}"
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append({"file_version": "brain.Event:2"}, {"session_log": start})
        for path in former:
            path.unlink()

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self._append(*({"step": row["step"], "summary": self._summary(value=self._values(row))} for row in rows))

    def _values(self, row: dict[str, Any]) -> list[Any]:
        return [self._summary.Value(tag=name, simple_value=number) for name, number in numbers(row).items()]

    def _append(self, *events: dict[str, Any]) -> None:
        data = io.BytesIO()
        for event in events:
            self._records(data).write(self._event(wall_time=time.time(), **event).SerializeToString())
        with open(self._path, "ab") as file:
            file.write(data.getvalue())


class WandB(Logger):
    """RUN/wandb, and wandb's server unless WANDB_MODE=offline: one run with its id, however many processes train it.

    wandb's own step is the number of the line, and charts are over `step`. Lines that wandb has are not sent twice: the
    server says how many it has, and offline, each process that ends leaves the number. What a killed process wrote
    offline is not complete: it is removed, and its lines are written again.
    """

    def __init__(self, run: Run) -> None:
        import wandb

        self._line = self._known = 0
        for earlier in (run.folder / "wandb").glob("offline-run-*"):
            try:
                self._known = max(self._known, int((earlier / _COUNT).read_text()))
            except (FileNotFoundError, ValueError):
                shutil.rmtree(earlier)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fewshot"), name=run.folder.name, id=run.identity[:32],
            dir=str(run.folder), config=configs.to_json(run.config), resume="allow", reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", finish_timeout=60.0, disable_git=True, save_code=False),
        )  # fmt: skip
        self._known = max(self._known, self._run.starting_step)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            if self._line >= self._known:
                self._run.log({"step": row["step"]} | numbers(row), step=self._line, commit=True)
            self._line += 1

    def close(self) -> None:
        self._run.finish()
        (Path(self._run.dir).parent / _COUNT).write_text(f"{max(self._line, self._known)}\n")


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB}  # by the package that each needs


def find(texts: Sequence[str]) -> list[str]:
    """The loggers that `--log` names, each once: `tensorboard,wandb`. UserError if one is unknown or not installed."""
    names = dict.fromkeys(name.strip() for text in texts for name in text.split(","))
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger in --log:", name, LOGGERS)
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"--log {name} needs {name}: pip install 'fewshot[{name}]'") from None
    return list(names)


class Logged(Forwarding):
    """Hands the lines of metrics.jsonl to loggers as they come; tells `to` all it hears, and which logger failed."""

    def __init__(self, to: Reporter, names: Sequence[str]) -> None:
        super().__init__(to)
        self._names, self._open = names, dict[str, Logger]()

    def begin(self, run: Run, steps: int, done: int) -> None:
        super().begin(run, steps, done)
        self._log = Follower(run.metrics_path)
        for name in self._names:
            self._try([name], partial(self._begin, name, run))
        self._pass_on()

    def step(self, *what: Any) -> None:
        super().step(*what)
        self._pass_on()

    def validation(self, *what: Any) -> None:
        super().validation(*what)
        self._pass_on()

    def end(self) -> None:
        super().end()
        for name, logger in list(self._open.items()):
            self._try([name], logger.close)
        self._open.clear()

    def _pass_on(self) -> None:
        if self._open:
            rows: list[dict[str, Any]] = []
            self._try([*self._open], lambda: rows.extend(self._log.read()[1]))
            for name, logger in list(self._open.items()):
                self._try([name], partial(logger.write, rows))

    def _begin(self, name: str, run: Run) -> None:
        self._open[name] = LOGGERS[name](run)

    def _try(self, names: Sequence[str], act: Callable[[], None]) -> None:
        """`names`: the loggers to drop if it fails."""
        try:
            act()
        except Exception as error:  # whatever a logger meets, a full disk or no network, must not stop training
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.say(f"Warning: --log {','.join(names)} has failed ({reason}); training goes on without it.")
            for name in names:
                self._open.pop(name, None)


def numbers(row: dict[str, Any], within: str = "") -> dict[str, float]:
    """The numbers in a line of metrics.jsonl by name, except `step`: {"validation": {"1shot": 0.5}} becomes
    {"validation/1shot": 0.5}."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{within}{name}/")
        elif isinstance(value, (int, float)) and (within or name != "step"):
            found[within + name] = float(value)
    return found
