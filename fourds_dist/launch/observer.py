"""What the caller of a run receives from the run, and how the caller stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fourds_dist.runs.events import Event, Sink
from fourds_dist.runs.failures import StopReason


def _ignore(event: Event) -> None:
    del event


@dataclass(frozen=True)
class RunObserver:
    """Receives the events of a run, and may stop the run.

    Args:
        sink: takes every event; with workers of Ray in a thread of its own.
        stop_reason: asked at every logging step, or twice a second with workers of Ray; returns why the run has to
            leave with a checkpoint, or None.
        is_quiet: do not show progress.
    """

    sink: Sink = _ignore
    stop_reason: Callable[[], StopReason | None] = lambda: None
    is_quiet: bool = False
