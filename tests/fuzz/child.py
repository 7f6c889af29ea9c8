"""A process that reads cases, so that one that ends or hangs takes no other along."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import traceback
from pathlib import Path

from tests.fuzz.bounds import FaultError
from tests.fuzz.running import TARGETS, run_cases

ROUND_CASES = 200
ROUND_S = 900
"""Seconds after which an unfinished round counts as a hang."""


class Child:
    """A process that reads cases."""

    def __init__(self, place: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, place), daemon=True)
        self._process.start()
        theirs.close()
        self.first_mib = 0

    def round(self, name: str, seed: int) -> tuple[str, dict[str, bytes]] | None:
        """(what failed, its files), ("", {}) where nothing did; None: no answer came."""
        try:
            self._pipe.send((name, seed))
            answer = self._pipe.recv() if self._pipe.poll(ROUND_S) else None
        except (EOFError, OSError):
            return None
        self.first_mib = self.first_mib or self.resident_mib()
        return answer

    def resident_mib(self) -> int:
        """Memory of the process."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS"))

    def end(self) -> int | None:
        """End the process; gives its exit status."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return self._process.exitcode


def num_of(name: str) -> int:
    """Cases of a target in a round."""
    return max(10, int(ROUND_CASES * TARGETS[name].share))


def _serve(pipe: multiprocessing.connection.Connection, place: Path) -> None:
    logging.disable()
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        try:
            run_cases(TARGETS[name], num_cases=num_of(name), fresh_seed=seed, at=place)
            pipe.send(("", {}))
        except FaultError as error:
            pipe.send((str(error), error.files))  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:  # of the fuzzing itself
            pipe.send((f"drawing cases failed: {traceback.format_exc()}", getattr(error, "files", {})))
