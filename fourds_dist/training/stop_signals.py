"""Stop requests by SIGTERM, Ctrl-C or a node's removal: the run writes a checkpoint and stops.

Ranks receive requests at different times. They agree at logging steps (`meter`), which synchronise the ranks anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fourds_dist.runs.failures import StopKind, StopReason

StopSignal = Callable[[float], StopReason | None]
"""Function from the seconds of training so far (equal on all ranks) to this rank's stop request, or None. Every rank
calls it at every logging step."""


class Stopped(Exception):
    """A run stopped early with a checkpoint at `step`; the same command resumes there."""

    def __init__(self, reason: StopReason, step: int) -> None:
        super().__init__(reason, step)  # pickling needs both
        self.reason, self.step = reason, step

    def __str__(self) -> str:
        return self.reason.at_step(self.step)


def never(run_s: float) -> StopReason | None:
    """Return None, for runs without stop requests."""
    del run_s
    return None


@contextmanager
def catch_signals() -> Iterator[StopSignal]:
    """Turn SIGTERM and Ctrl-C into stop requests inside the context; a second signal raises KeyboardInterrupt.

    Outside the main thread, where Python has no signal handlers, this does nothing.
    """
    requests: list[StopReason] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        if requests:
            raise KeyboardInterrupt
        requests.append(StopReason(StopKind.CTRL_C if number == signal.SIGINT else StopKind.SIGTERM))

    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda run_s: requests[0] if requests else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
