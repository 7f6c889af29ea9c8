"""Leaving early on purpose: SIGTERM, Ctrl-C, a node that is to be taken away. Checkpoint first, then leave.

Ranks learn of it at different instants; they agree at logging steps (`meter`), where they meet anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

StopSignal = Callable[[float], str | None]
"""Asked at every logging step, on every rank together, with the seconds of training so far (the same on all ranks):
why this rank would have the run stop, or None."""


class Stopped(Exception):
    """A run left early with a checkpoint at `step`; the same command goes on from there."""

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(
            f"stopped by {reason} at step {step}, with a checkpoint; the same command goes on from there"
        )
        self.reason, self.step = reason, step


def never(run_s: float) -> str | None:
    """The signal of runs that nobody stops."""
    del run_s
    return None


@contextmanager
def told_by_signals() -> Iterator[StopSignal]:
    """SIGTERM and Ctrl-C ask to stop while the context lasts; a second one does not ask any more.

    Outside the main thread, where Python hears no signals, nothing is changed.
    """
    told: list[str] = []

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        if told:
            raise KeyboardInterrupt
        told.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda run_s: told[0] if told else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
