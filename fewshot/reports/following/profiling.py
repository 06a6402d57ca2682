"""A few steps of training under torch's profiler: `train --profile 5` says where their time goes, and keeps a trace."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fewshot.learning.reporter import Forwarding, Reporter
from fewshot.runs import Run

STEPS = 5
_WARM = 5  # steps before the profiled ones: the first are slow
_LINES = 10  # of the table
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its lines on stderr, such as that there is no GPU, help nobody


class Profiled(Forwarding):
    """Profiles `steps` steps, from the sixth of this sitting on, or earlier if fewer are left.

    Writes RUN/profile/steps-A-B.json, a Chrome trace, and tells `to` which operations took longest by themselves.
    """

    def __init__(self, to: Reporter, steps: int = STEPS) -> None:
        super().__init__(to)
        self._steps = steps
        self._profiler: profile | None = None

    def begin(self, run: Run, steps: int, done: int) -> None:
        super().begin(run, steps, done)
        self._folder, self._now = run.folder / "profile", done
        self._first = max(done, min(done + _WARM, steps - self._steps))  # steps before it are not profiled
        if done >= steps:
            self.say("Nothing to profile: no step of training is left.")

    def step_begins(self, step: int) -> None:
        super().step_begins(step)
        self._now = step
        if self._profiler and step == self._first + self._steps:
            self._try(self._finish, step)
        if step == self._first:
            self._try(self._start)

    def end(self) -> None:
        super().end()
        if self._profiler:
            self._try(self._finish, self._now + 1)

    def _start(self) -> None:
        kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
        self._profiler = profile(activities=kinds)
        self._profiler.start()

    def _finish(self, after: int) -> None:
        """Stop, write the trace, and say what it shows. `after`: the last step that was profiled, from 1."""
        profiler, self._profiler = self._profiler, None
        assert profiler
        profiler.stop()
        trace = self._folder / f"steps-{self._first + 1}-{after}.json"
        part = self._folder.with_name(f".{trace.name}")  # in the run folder, where leftovers of a kill are removed
        try:
            profiler.export_chrome_trace(str(part))
            self._folder.mkdir(exist_ok=True)
            part.replace(trace)
        finally:
            part.unlink(missing_ok=True)
        self.say(f"Profile of steps {self._first + 1} to {after}: {trace} (for ui.perfetto.dev, or chrome://tracing)")
        self.say(summary(profiler))

    def _try(self, act: Callable[..., None], *what: int) -> None:
        try:
            act(*what)
        except Exception as error:  # a full disk, or a driver that allows no profiling, must not stop training
            self._profiler = None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.say(f"Warning: --profile has failed ({reason}); training goes on without it.")


def summary(profiler: profile) -> str:
    """The operations that took longest by themselves, on the GPU if there is one, a line each."""
    # An operation's own event has the time of its kernels on the GPU; these also have events of their own.
    events = [each for each in profiler.key_averages() if each.device_type == DeviceType.CPU]
    on_gpu = any(each.self_device_time_total for each in events)
    spent = {each.key: (each.self_device_time_total if on_gpu else each.self_cpu_time_total, each) for each in events}
    whole = sum(took for took, _ in spent.values()) or 1.0
    lines = [f"  {'self time':>12}  share    calls  operation on the {'GPU' if on_gpu else 'processor'}"]
    for name, (took, each) in sorted(spent.items(), key=lambda item: -item[1][0])[:_LINES]:
        lines.append(f"  {took / 1000:9.1f} ms  {100 * took / whole:4.1f}%  {each.count:7,}  {name}")
    return "\n".join(lines)
