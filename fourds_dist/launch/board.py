"""How the driver learns what rank 0 does: an actor to which events are sent and from which the driver reads them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

Row = dict[str, Any]


@ray.remote(num_cpus=0)
class Board:
    """Events in order of arrival, until they are taken."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def put(self, row: Row) -> None:
        """Add one event; called without waiting for an answer."""
        self._rows.append(row)

    def take(self) -> list[Row]:
        """All events since the last call."""
        rows, self._rows = self._rows, []
        return rows


@contextmanager
def watched_board(show: Callable[[Row], None], *, interval_s: float = 0.3) -> Iterator[Any]:
    """A board whose events go to `show`, in a thread of the driver, while the context lasts."""
    board = Board.remote()  # pyright: ignore[reportAttributeAccessIssue]
    done = threading.Event()

    def watch() -> None:
        while True:
            last_round = done.wait(interval_s)
            for row in ray.get(board.take.remote()):
                show(row)
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
