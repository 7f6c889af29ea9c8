"""A tracker in a thread of its own: a tracker that fails or waits for its server neither ends nor delays a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread

from fourds_dist.io.error_text import one_line
from fourds_dist.runs.events import Event, Sink, StageEnded, StageStopped

END_S = 60.0
"""How long the end of a stage waits for a tracker."""

log = logging.getLogger(__name__)


class Background:
    """Sink that passes events to a tracker; the first error is logged and ends tracking in this stage.

    Args:
        title: name of the tracker, for messages.
        start: starts the tracker and returns its sink; runs in the thread.
    """

    def __init__(self, title: str, start: Callable[[], Sink]) -> None:
        self._title, self._start = title, start
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._done = Flag()
        Thread(target=self._run, name=f"tracking by {title}", daemon=True).start()

    def __call__(self, event: Event) -> None:
        """Pass one event; at the last event of a stage, wait until the tracker has all events."""
        self._events.put(event)
        if isinstance(event, StageEnded | StageStopped) and not self._done.wait(END_S):
            log.warning("%s has not answered for %.0f s; its last events may be missing", self._title, END_S)

    def _run(self) -> None:
        try:
            sink = self._start()
            while True:
                event = self._events.get()
                sink(event)
                if isinstance(event, StageEnded | StageStopped):
                    break
        except Exception as error:
            log.warning("%s tracking is off for the rest of this stage: %s", self._title, one_line(error))
        finally:
            self._done.set()
