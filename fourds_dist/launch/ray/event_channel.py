"""Channel between driver and workers: an actor that receives events of rank 0 and returns the driver's stop request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from fourds_dist.runs.events import Event, Sink
from fourds_dist.runs.failures import StopReason


@ray.remote(num_cpus=0)
class EventChannel:
    """Queue of events, notes for the next workers, and the driver's stop request."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._notes: list[str] = []
        self._stop: StopReason | None = None

    def put(self, event: Event) -> StopReason | None:
        """Add one event; return the reason of a stop request, or None."""
        self._events.append(event)
        return self._stop

    def take(self) -> list[Event]:
        """Return and remove all events."""
        events, self._events = self._events, []
        return events

    def note(self, text: str) -> None:
        """Store a line that the next workers write to the log of the run."""
        if text not in self._notes:
            self._notes.append(text)

    def take_notes(self) -> list[str]:
        """Return and remove all notes."""
        notes, self._notes = self._notes, []
        return notes

    def stop(self, reason: StopReason) -> None:
        """Request that the workers stop with a checkpoint."""
        self._stop = reason


@contextmanager
def open_event_channel(show: Sink, *, interval_s: float = 0.3) -> Iterator[Any]:
    """Yield an event channel whose events go to `show`, in a thread of the driver, while the context lasts."""
    here = ray.get_runtime_context().get_node_id()
    actor: Any = EventChannel
    channel = actor.options(label_selector={"ray.io/node-id": here}).remote()
    done = threading.Event()

    def watch() -> None:
        while True:
            last_round = done.wait(interval_s)
            try:
                events = ray.get(channel.take.remote())
            except ray.exceptions.RayError:  # the cluster is gone; the run reports the error
                return
            for event in events:
                show(event)
            if last_round:
                return

    thread = threading.Thread(target=watch, name="events", daemon=True)
    thread.start()
    try:
        yield channel
    finally:
        done.set()
        thread.join(timeout=10)
        ray.kill(channel)
