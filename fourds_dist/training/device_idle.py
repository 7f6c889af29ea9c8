"""Time in which the device waits between steps, measured by events on the device.

    step 1 |=======|       idle       |=======| step 2
                   end of 1           start of 2

The host may queue steps far ahead, and then blocks in its own calls, so the host's clock cannot tell a busy device from
a waiting one. The device's events can. Waits within a step are not visible, so this is for captured steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

Event = torch.cuda.Event


class DeviceIdle:
    """Sum the time between the end of each step and the start of the next one."""

    def __init__(self, new_event: Callable[[], Event] | None = None) -> None:
        self._new_event = new_event or partial(Event, enable_timing=True)
        self._last_end: Event | None = None
        self._waits: list[tuple[Event, Event]] = []

    def step_starts(self) -> None:
        """Mark the start of a step, before its work is queued."""
        if self._last_end is not None:
            self._waits.append((self._last_end, self._recorded()))

    def step_ends(self) -> None:
        """Mark the end of a step, after its work is queued."""
        self._last_end = self._recorded()

    def take_s(self) -> float:
        """Return and clear the seconds of idle time so far. The device has finished all steps."""
        waits, self._waits = self._waits, []
        return sum(end.elapsed_time(start) for end, start in waits) / 1000

    def restart(self) -> None:
        """Forget the last step, so that the time until the next one does not count."""
        self._last_end = None

    def _recorded(self) -> Event:
        event = self._new_event()
        event.record()
        return event
