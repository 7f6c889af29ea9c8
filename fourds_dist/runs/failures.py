"""Why a run stops, and how its workers fail: kinds that programs decide by, and the messages made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class StopKind(StrEnum):
    """What asked a run to leave with a checkpoint."""

    CTRL_C = "ctrl_c"
    SIGTERM = "sigterm"
    INTERRUPTED = "interrupted"
    """Ctrl-C or SIGTERM at the driver, which does not tell the two apart."""
    PREEMPTED = "preempted"
    """Ray announced that a node will be taken away; the stage goes on without it."""
    DRIVER_ENDED = "driver_ended"
    """The driver of the workers is over: the scheduler of a sweep stopped the trial, or an error ended the driver."""
    SWEEP_ENDED = "sweep_ended"
    BUDGET_HOURS = "budget_hours"
    BUDGET_EPOCHS = "budget_epochs"


_STOP_MESSAGES = {
    StopKind.CTRL_C: "Ctrl-C",
    StopKind.SIGTERM: "SIGTERM",
    StopKind.INTERRUPTED: "Ctrl-C or SIGTERM",
    StopKind.PREEMPTED: "the preemption of a node",
    StopKind.DRIVER_ENDED: "the end of its driver",
    StopKind.SWEEP_ENDED: "the end of the sweep",
    StopKind.BUDGET_HOURS: "budget.hours",
    StopKind.BUDGET_EPOCHS: "budget.epochs",
}


@dataclass(frozen=True)
class StopReason:
    """Why a run, a stage or a sweep leaves before its end.

    Args:
        workers: ranks on the node that is preempted.

    >>> str(StopReason(StopKind.PREEMPTED, (1, 3)))
    'the preemption of a node (workers 1, 3)'
    """

    kind: StopKind
    workers: tuple[int, ...] = ()

    def __str__(self) -> str:
        ranks = ", ".join(map(str, self.workers))
        where = f" (worker{'s' if len(self.workers) > 1 else ''} {ranks})" if self.workers else ""
        return _STOP_MESSAGES[self.kind] + where

    def at_step(self, step: int) -> str:
        """The line that a run ends with when it has stopped at a step."""
        return f"stopped by {self} at step {step}, with a checkpoint; the same command goes on from there"


class StorageError(OSError):
    """Storage that failed for longer than a run tries again; an OSError with the number of the last error."""


class FailureKind(StrEnum):
    """How a worker failed."""

    KILLED = "killed"
    NODE_LOST = "node_lost"
    OUT_OF_MEMORY = "out_of_memory"
    PEER_LOST = "peer_lost"
    """A collective lost its connection: another worker failed first."""
    COLLECTIVE_TIMEOUT = "collective_timeout"
    STORAGE = "storage"
    DATA = "data"
    OTHER = "other"

    @property
    def is_death(self) -> bool:
        """Whether the worker's process is gone, which is the cause of what other workers meet."""
        return self in (FailureKind.KILLED, FailureKind.NODE_LOST, FailureKind.OUT_OF_MEMORY)


_FAILURE_MESSAGES = {
    FailureKind.KILLED: "was killed",
    FailureKind.NODE_LOST: "was killed with its node",
    FailureKind.OUT_OF_MEMORY: "ran out of memory",
    FailureKind.PEER_LOST: "lost the connection to another worker",
}
"""Of the kinds whose error has nothing to add."""


@dataclass(frozen=True)
class WorkerFailure:
    """How a worker failed.

    Args:
        detail: the last line of its error; empty where the error has no message.

    >>> str(WorkerFailure(FailureKind.KILLED)), str(WorkerFailure(FailureKind.DATA, "a.tar cannot be read"))
    ('was killed', 'failed: a.tar cannot be read')
    """

    kind: FailureKind
    detail: str = ""

    def __str__(self) -> str:
        if self.kind == FailureKind.COLLECTIVE_TIMEOUT:
            return f"waited too long for the other workers ({self.detail})"
        return _FAILURE_MESSAGES.get(self.kind, f"failed: {self.detail}")


def describe_failures(failures: Mapping[int, WorkerFailure]) -> str:
    """The workers that failed together, and how, in one line.

    Where a worker died, only the dead are named: that the others then lost a connection has no cause of its own.

    Args:
        failures: rank -> how it failed.
    """
    died = {rank: failure for rank, failure in failures.items() if failure.kind.is_death}
    return "; ".join(f"worker {rank} {failure}" for rank, failure in sorted((died or failures).items()))
