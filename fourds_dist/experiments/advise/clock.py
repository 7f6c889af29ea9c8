"""The time of a question: what is spent, over all starts of the command, and what is left."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fourds_dist.runs.run_folder import RunFolder

RESERVE = 0.03
"""Share of the budget for the page."""
WRITE_EVERY_S = 5.0


class BudgetClock:
    """Counts the seconds of a budget, and keeps them in the folder for the next start.

    Args:
        name: file of the folder.
    """

    def __init__(self, folder: RunFolder, name: str, budget_s: float) -> None:
        self._folder, self._name, self._budget_s = folder, name, budget_s
        self._before_s = float(folder.read_json(name)["seconds"]) if folder.exists(name) else 0.0
        self._began_s = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds of this start and of those before."""
        return self._before_s + time.monotonic() - self._began_s

    @property
    def left_s(self) -> float:
        """Seconds for trainings; below 0 after their end."""
        return (1 - RESERVE) * self._budget_s - self.spent_s

    @property
    def end_s(self) -> float:
        """The end of trainings, in seconds since 1970."""
        return time.time() + self.left_s

    def write(self) -> None:
        """Keep the seconds that are spent."""
        self._folder.write_json(self._name, {"seconds": round(self.spent_s, 2)})

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the seconds that are spent every WRITE_EVERY_S seconds, so that a kill loses few."""
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(WRITE_EVERY_S):
                self.write()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.write()


def span(seconds: float) -> str:
    """Return a time as --budget takes it.

    >>> span(45), span(600), span(5400)
    ('45s', '10m', '1.5h')
    """
    if seconds < 100:
        return f"{seconds:.0f}s"
    return f"{math.ceil(seconds / 60):.0f}m" if seconds < 5400 else f"{seconds / 3600:.3g}h"
