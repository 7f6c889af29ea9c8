"""Failures of workers, classified by the types of their exceptions, and reports of Ray Train's controller.

An exception reaches the controller pickled, in wrappers: Ray's `RayTaskError` (with a `cause`), and Ray Train's
wrappers of a worker's exception and of a failed health check. Ray's ActorDiedError has no field for the cause of a
death, and gloo raises RuntimeError for every failure of a collective; `_kind_by_text` reads messages for these types
only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray.exceptions
import torch
from ray.train import Checkpoint, UserCallback

from fourds_dist.config.stage_names import StageName
from fourds_dist.data import DataError
from fourds_dist.io.errors import StorageError
from fourds_dist.launch.ray.ray_private import (
    CollectiveTimeoutError,
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from fourds_dist.runs.events import CheckpointSaved
from fourds_dist.runs.failures import FailureKind, WorkerFailure, describe_failures

# Exception types -> kind; the first match counts.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], FailureKind], ...] = (
    ((DataError,), FailureKind.DATA),
    ((StorageError,), FailureKind.STORAGE),
    ((MemoryError, torch.OutOfMemoryError, ray.exceptions.OutOfMemoryError), FailureKind.OUT_OF_MEMORY),
    ((ray.exceptions.NodeDiedError, ray.exceptions.LocalRayletDiedError), FailureKind.NODE_LOST),
    ((CollectiveTimeoutError,), FailureKind.COLLECTIVE_TIMEOUT),
    ((ray.exceptions.WorkerCrashedError,), FailureKind.KILLED),
)

_DEATHS = (ray.exceptions.ActorDiedError, WorkerHealthCheckTimeoutError)
"""A process died, or Ray lost contact with it; only the message can show whether its node died too."""

MOST_CHARACTERS = 400
"""Characters of an error's message that are shown."""


class FailureReporter(UserCallback):
    """Sends failures of workers and registered checkpoints to the event channel; called in Ray's controller."""

    def __init__(self, channel: Any, stage: StageName) -> None:
        self._channel = channel
        self._stage: StageName = stage

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Send one line for all workers that failed together."""
        del run_context
        self._channel.note.remote(describe_exceptions(worker_exceptions))

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Send an event for each complete checkpoint, with the metrics of rank 0."""
        del run_context
        if checkpoint is not None:
            self._channel.put.remote(CheckpointSaved(**metrics[0]).stamped(self._stage, time.time()))


def describe_exceptions(exceptions: Mapping[int, BaseException]) -> str:
    """Return one line that lists the workers that failed together, and how each failed.

    Args:
        exceptions: rank -> exception of the worker.
    """
    return describe_failures({rank: failure_of(error) for rank, error in exceptions.items()})


def failure_of(error: BaseException) -> WorkerFailure:
    """Return the failure of a worker that raised `error`, or whose process died with `error`."""
    errors = list(_causes(error))
    innermost = errors[-1]
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    is_expected = isinstance(innermost, ValueError | RuntimeError | OSError)
    type_name = [] if is_expected and lines else [type(innermost).__name__]
    return WorkerFailure(_kind_of(errors), ": ".join([*type_name, *lines[-1:]])[:MOST_CHARACTERS])


def _kind_of(errors: list[BaseException]) -> FailureKind:
    for error in reversed(errors):
        for types, kind in _KINDS:
            if isinstance(error, types):
                return kind
    is_death = any(isinstance(error, _DEATHS) for error in errors)
    # gloo and CUDA raise RuntimeError itself; the type of its subclasses is enough.
    is_of_torch = type(errors[-1]) is RuntimeError or isinstance(errors[-1], torch.distributed.DistError)
    return _kind_by_text(str(errors[-1]), is_death=is_death) if is_death or is_of_torch else FailureKind.OTHER


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and the exceptions that Ray wrapped in it, the innermost last."""
    inner: object = error
    while isinstance(inner, BaseException):
        yield inner
        match inner:
            case UserExceptionWithTraceback():
                inner = inner._base_exc
            case WorkerHealthCheckFailedError():
                inner = inner.health_check_failure
            case ray.exceptions.RayTaskError():
                inner = inner.cause
            case _:
                return


def _kind_by_text(text: str, *, is_death: bool) -> FailureKind:
    """Return the kind of a failure from messages of Ray, gloo and CUDA, if the type is not enough.

    Ray's message about a dead process lists all possible causes, such as OOM killers; only the words below prove one.
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
