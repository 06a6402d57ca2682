"""Ctrl-C, `kill` and a closed terminal wait for the end of a step, so that the checkpoint is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from fewshot.core.process import STOPS


class Interrupt:
    """Inside it, the first signal of `process.STOPS` only sets `asked`; then Ctrl-C (SIGINT) interrupts at once.

    Other signals may come twice without anybody in a hurry: a service manager sends one to every process, and so does a
    sweep to its workers. A signal that the process ignores, such as SIGHUP under nohup, stays ignored. `patient`: from
    the first signal on, even SIGINT does nothing, because torchrun repeats what all its processes have received.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self.patient = False, patient

    def __enter__(self) -> Interrupt:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # Python lets only this thread set handlers
            for number in STOPS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.patient and self.asked else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and not self.patient:
            raise KeyboardInterrupt
        self.asked = True
