"""Ctrl-C, `kill` and a closed terminal wait for the end of a step, where a checkpoint is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from fewshot.core.process import STOPS


class Interrupt:
    """While entered, the first signal of `process.STOPS` only sets `asked`; a second one interrupts at once.

    A signal that the process ignores, as SIGHUP under nohup, stays ignored. `patient`: further signals do nothing, from
    then on, for torchrun repeats what all its processes have heard already.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self.patient = False, patient

    def __enter__(self) -> Interrupt:
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # Python lets only this one set handlers
            for number in STOPS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if self.patient and self.asked else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self.patient:
            raise KeyboardInterrupt
        self.asked = True
