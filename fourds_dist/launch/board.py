"""How driver and workers talk: an actor to which rank 0 sends events, and which answers what the driver wants."""

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
class Board:
    """Events in order of arrival, until they are taken; notes for the next workers; the driver's wish to stop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._notes: list[str] = []
        self._stop: StopReason | None = None

    def put(self, event: Event) -> StopReason | None:
        """Add one event; gives why the run is to stop, if it is."""
        self._events.append(event)
        return self._stop

    def take(self) -> list[Event]:
        """All events since the last call."""
        events, self._events = self._events, []
        return events

    def note(self, text: str) -> None:
        """Keep a line for the log of the run, which the next workers write."""
        if text not in self._notes:
            self._notes.append(text)

    def take_notes(self) -> list[str]:
        """All lines since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def stop(self, reason: StopReason) -> None:
        """Have the workers leave with a checkpoint."""
        self._stop = reason


@contextmanager
def watched_board(show: Sink, *, interval_s: float = 0.3) -> Iterator[Any]:
    """A board whose events go to `show`, in a thread of the driver, while the context lasts."""
    here = ray.get_runtime_context().get_node_id()
    actor: Any = Board
    board = actor.options(label_selector={"ray.io/node-id": here}).remote()
    done = threading.Event()

    def watch() -> None:
        while True:
            last_round = done.wait(interval_s)
            try:
                events = ray.get(board.take.remote())
            except ray.exceptions.RayError:  # the cluster goes; the run itself tells why
                return
            for event in events:
                show(event)
            if last_round:
                return

    thread = threading.Thread(target=watch, name="events", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join(timeout=10)
        ray.kill(board)
