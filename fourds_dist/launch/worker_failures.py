"""What Ray Train's controller tells: how workers failed, by the types of their exceptions, and its checkpoints.

An exception reaches the controller pickled, in wrappers of Ray: `RayTaskError` (with a `cause`), and Ray Train's of a
worker's own exception and of a failed health check. Ray's ActorDiedError has no field for the cause of a death, and
gloo raises a plain RuntimeError for all that befalls a collective; for these alone `_kind_by_text` reads messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray.exceptions
import torch
from ray.train import Checkpoint, UserCallback
from ray.train.v2._internal.exceptions import (
    CollectiveTimeoutError,
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

from fourds_dist.data import DataError
from fourds_dist.runs.events import CheckpointSaved
from fourds_dist.runs.failures import FailureKind, StorageError, WorkerFailure, describe_failures
from fourds_dist.runs.layout import StageName

# Types that say all; the first that fits holds.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], FailureKind], ...] = (
    ((DataError,), FailureKind.DATA),
    ((StorageError,), FailureKind.STORAGE),
    ((MemoryError, torch.OutOfMemoryError, ray.exceptions.OutOfMemoryError), FailureKind.OUT_OF_MEMORY),
    ((ray.exceptions.NodeDiedError, ray.exceptions.LocalRayletDiedError), FailureKind.NODE_LOST),
    ((CollectiveTimeoutError,), FailureKind.COLLECTIVE_TIMEOUT),
    ((ray.exceptions.WorkerCrashedError,), FailureKind.KILLED),
)

_DEATHS = (ray.exceptions.ActorDiedError, WorkerHealthCheckTimeoutError)
"""A process is gone, or Ray gave it up; only the message may say that its node went too."""

MOST_CHARACTERS = 400
"""Of what an error says of itself."""


class Witness(UserCallback):
    """Tells the board why workers failed, and what Ray Train has counted; Ray calls it in its controller."""

    def __init__(self, board: Any, stage: StageName) -> None:
        self._board = board
        self._stage: StageName = stage

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """One line for all workers that failed together."""
        del run_context
        self._board.note.remote(describe_exceptions(worker_exceptions))

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """An event for each checkpoint that is whole, with rank 0's numbers."""
        del run_context
        if checkpoint is not None:
            self._board.put.remote(CheckpointSaved(**metrics[0]).stamped(self._stage, time.time()))


def describe_exceptions(exceptions: Mapping[int, BaseException]) -> str:
    """The workers that failed together, and how, in one line.

    Args:
        exceptions: rank -> what its worker raised.
    """
    return describe_failures({rank: failure_of(error) for rank, error in exceptions.items()})


def failure_of(error: BaseException) -> WorkerFailure:
    """What happened to a worker that raised `error`, or whose process Ray found gone."""
    errors = list(_causes(error))
    innermost = errors[-1]
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    is_for_people = isinstance(innermost, ValueError | RuntimeError | OSError)
    type_name = [] if is_for_people and lines else [type(innermost).__name__]
    return WorkerFailure(_kind_of(errors), ": ".join([*type_name, *lines[-1:]])[:MOST_CHARACTERS])


def _kind_of(errors: list[BaseException]) -> FailureKind:
    for error in reversed(errors):
        for types, kind in _KINDS:
            if isinstance(error, types):
                return kind
    is_death = any(isinstance(error, _DEATHS) for error in errors)
    # gloo and CUDA raise RuntimeError itself; other subclasses of it say by their type what they are.
    is_of_torch = type(errors[-1]) is RuntimeError or isinstance(errors[-1], torch.distributed.DistError)
    return _kind_by_text(str(errors[-1]), is_death=is_death) if is_death or is_of_torch else FailureKind.OTHER


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that Ray wrapped in it, the innermost last."""
    inside: object = error
    while isinstance(inside, BaseException):
        yield inside
        match inside:
            case UserExceptionWithTraceback():
                inside = inside._base_exc
            case WorkerHealthCheckFailedError():
                inside = inside.health_check_failure
            case ray.exceptions.RayTaskError():
                inside = inside.cause
            case _:
                return


def _kind_by_text(text: str, *, is_death: bool) -> FailureKind:
    """The kind of a failure whose type does not tell it, by what Ray, gloo and CUDA write.

    Ray's message about a dead process lists every cause that there might be, OOM killers among them: only the words
    below prove something.
    """
    text = text.lower()

    def has(*words: str) -> bool:
        return any(word in text for word in words)

    if is_death:
        if has("running low on memory"):
            return FailureKind.OUT_OF_MEMORY
        return FailureKind.NODE_LOST if has("node has died", "node was terminated") else FailureKind.KILLED
    if has("cuda out of memory", "cuda error: out of memory"):
        return FailureKind.OUT_OF_MEMORY
    if has("connection reset by peer", "connection closed by peer", "remote process exited"):
        return FailureKind.PEER_LOST
    return FailureKind.COLLECTIVE_TIMEOUT if has("timed out", "timeout") else FailureKind.OTHER
