"""Leaving early on purpose: SIGTERM, Ctrl-C, a node that is to be taken away. Checkpoint first, then leave.

Ranks learn of it at different instants; they agree at logging steps (`meter`), where they meet anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fourds_dist.runs.failures import StopKind, StopReason

StopSignal = Callable[[float], StopReason | None]
"""Asked at every logging step, on every rank together, with the seconds of training so far (the same on all ranks):
why this rank would have the run stop, or None."""


class Stopped(Exception):
    """A run left early with a checkpoint at `step`; the same command goes on from there."""

    def __init__(self, reason: StopReason, step: int) -> None:
        super().__init__(reason, step)  # both, by which the exception is pickled
        self.reason, self.step = reason, step

    def __str__(self) -> str:
        return self.reason.at_step(self.step)


def never(run_s: float) -> StopReason | None:
    """The signal of runs that nobody stops."""
    del run_s
    return None


@contextmanager
def told_by_signals() -> Iterator[StopSignal]:
    """SIGTERM and Ctrl-C ask to stop while the context lasts; a second one does not ask any more.

    Outside the main thread, where Python hears no signals, nothing is changed.
    """
    told: list[StopReason] = []

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        if told:
            raise KeyboardInterrupt
        told.append(StopReason(StopKind.CTRL_C if number == signal.SIGINT else StopKind.SIGTERM))

    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda run_s: told[0] if told else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
