"""Reasons why a run stops and kinds of worker failure, as types for programs and as messages for users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class StopKind(StrEnum):
    """Kind of request to stop a run with a checkpoint."""

    CTRL_C = "ctrl_c"
    SIGTERM = "sigterm"
    INTERRUPTED = "interrupted"
    """Ctrl-C or SIGTERM at the driver, which handles both alike."""
    PREEMPTED = "preempted"
    """Ray announced the preemption of a node; the stage continues without this node."""
    DRIVER_ENDED = "driver_ended"
    """The driver of the workers ended: the scheduler of a sweep stopped the trial, or the driver failed."""
    EARLY_STOPPING = "early_stopping"
    """The run is clearly worse than others of its sweep or comparison."""
    SWEEP_ENDED = "sweep_ended"
    BUDGET_HOURS = "budget_hours"
    BUDGET_EPOCHS = "budget_epochs"
    BUDGET_TIME = "budget_time"


_STOP_MESSAGES = {
    StopKind.CTRL_C: "Ctrl-C",
    StopKind.SIGTERM: "SIGTERM",
    StopKind.INTERRUPTED: "Ctrl-C or SIGTERM",
    StopKind.PREEMPTED: "the preemption of a node",
    StopKind.DRIVER_ENDED: "the end of its driver",
    StopKind.EARLY_STOPPING: "early stopping",
    StopKind.SWEEP_ENDED: "the end of the sweep",
    StopKind.BUDGET_HOURS: "budget.hours",
    StopKind.BUDGET_EPOCHS: "budget.epochs",
    StopKind.BUDGET_TIME: "the end of --budget",
}


@dataclass(frozen=True)
class StopReason:
    """The reason why a run, a stage or a sweep stops early.

    Args:
        workers: ranks on the preempted node.

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
        """Return the last line that a run prints when it stops at a step."""
        resumes = "" if self.kind == StopKind.EARLY_STOPPING else "; the same command resumes from there"
        return f"stopped by {self} at step {step}, with a checkpoint{resumes}"


class FailureKind(StrEnum):
    """Kind of a worker failure."""

    KILLED = "killed"
    NODE_LOST = "node_lost"
    OUT_OF_MEMORY = "out_of_memory"
    PEER_LOST = "peer_lost"
    """A collective operation lost its connection because another worker failed first."""
    COLLECTIVE_TIMEOUT = "collective_timeout"
    STORAGE = "storage"
    DATA = "data"
    OTHER = "other"

    @property
    def is_death(self) -> bool:
        """Whether the worker's process died, which causes the failures of other workers."""
        return self in (FailureKind.KILLED, FailureKind.NODE_LOST, FailureKind.OUT_OF_MEMORY)


_FAILURE_MESSAGES = {
    FailureKind.KILLED: "was killed",
    FailureKind.NODE_LOST: "was killed with its node",
    FailureKind.OUT_OF_MEMORY: "ran out of memory",
    FailureKind.PEER_LOST: "lost the connection to another worker",
}
"""Messages of the kinds that need no detail of the error."""


@dataclass(frozen=True)
class WorkerFailure:
    """One failure of a worker.

    Args:
        detail: last line of the error; empty where the error has no message.

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
    """Return one line that lists the workers that failed together, and how each failed.

    If any worker died, only dead workers are listed: the others lost their connections as a consequence.

    Args:
        failures: rank -> failure.
    """
    died = {rank: failure for rank, failure in failures.items() if failure.kind.is_death}
    return "; ".join(f"worker {rank} {failure}" for rank, failure in sorted((died or failures).items()))
