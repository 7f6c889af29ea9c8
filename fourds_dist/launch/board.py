"""How driver and workers talk: an actor to which rank 0 sends events, and which answers what the driver wants."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray.train import Checkpoint, UserCallback

Row = dict[str, Any]

OURS = re.compile(r"could not be \w+, tried for |\bDataError: ")
"""In the last line of what storage (`training.patience`) or data failed of; the line may quote a lost connection."""

LOST_PEER = ("connection reset by peer", "connection closed by peer", "remote process exited")
"""What gloo and NCCL say of a collective whose other side is gone."""


@ray.remote(num_cpus=0)
class Board:
    """Events in order of arrival, until they are taken; notes for the next workers; the driver's wish to stop."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._notes: list[str] = []
        self._stop: str | None = None

    def put(self, row: Row) -> str | None:
        """Add one event; gives why the run is to stop, if it is."""
        self._rows.append(row)
        return self._stop

    def take(self) -> list[Row]:
        """All events since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def note(self, text: str) -> None:
        """Keep a line for the log of the run, which the next workers write."""
        if text not in self._notes:
            self._notes.append(text)

    def take_notes(self) -> list[str]:
        """All lines since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def stop(self, reason: str) -> None:
        """Have the workers leave with a checkpoint."""
        self._stop = reason


class Witness(UserCallback):
    """Tells the board why workers failed, and what Ray Train has counted; Ray calls it in its controller."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """One line for all workers that failed together."""
        del run_context
        self._board.note.remote(told(worker_exceptions))

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """An event for each checkpoint that is whole, with rank 0's numbers."""
        del run_context
        if checkpoint is not None:
            self._board.put.remote({"event": "saved", **metrics[0]})


def told(worker_exceptions: dict[int, Exception]) -> str:
    """Which workers failed, and of what, in one line.

    A worker that died is the cause; that others then lost it in a collective says nothing new.
    """
    reasons = {rank: reason_of(error) for rank, error in sorted(worker_exceptions.items())}
    died = {rank: reason for rank, reason in reasons.items() if reason.startswith(("was killed", "ran out"))}
    return "; ".join(f"worker {rank} {reason}" for rank, reason in (died or reasons).items())


def reason_of(error: BaseException) -> str:
    """What happened to a worker, in a few words.

    Ray's text about a dead process lists every cause there might be, OOM killers among them: its words prove little.
    """
    kinds, text = " ".join(kind.__name__ for kind in type(error).__mro__), str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if "DataError" in kinds or OURS.search(last):
        return f"failed: {last[:400]}"
    lowered = text.lower()
    if "OutOfMemoryError" in kinds or "running low on memory" in lowered or "cuda out of memory" in lowered:
        return "ran out of memory"
    if "node has died" in lowered or "node was terminated" in lowered:
        return "was killed with its node"
    if "ActorDiedError" in kinds or "actor died" in lowered or "worker unexpectedly exits" in lowered:
        return "was killed"
    if any(words in lowered for words in LOST_PEER):
        return "lost another one, which went without a word"
    if "timed out" in lowered or "timeout" in lowered:
        return f"waited too long for the others ({last[:160]})"
    return f"failed: {last[:200]}"


@contextmanager
def watched_board(show: Callable[[Row], None], *, interval_s: float = 0.3) -> Iterator[Any]:
    """A board whose events go to `show`, in a thread of the driver, while the context lasts."""
    here = ray.get_runtime_context().get_node_id()
    actor: Any = Board
    board = actor.options(label_selector={"ray.io/node-id": here}).remote()
    done = threading.Event()

    def watch() -> None:
        while True:
            last_round = done.wait(interval_s)
            try:
                rows = ray.get(board.take.remote())
            except ray.exceptions.RayError:  # the cluster goes; the run itself tells why
                return
            for row in rows:
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
