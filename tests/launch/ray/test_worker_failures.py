"""Failures of workers are classified by the types of their exceptions, as they come out of a pickle."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable

import pytest
import ray.exceptions
import torch
from ray import cloudpickle
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2._internal.exceptions import (
    BroadcastCollectiveTimeoutError,
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
)

from fourds_dist.data import DataError
from fourds_dist.io.errors import StorageError
from fourds_dist.io.retry import with_retries
from fourds_dist.launch.ray.worker_failures import describe_exceptions, failure_of
from fourds_dist.runs.failures import FailureKind

EVERY_CAUSE = """Worker exit detail: Worker unexpectedly exits with a connection error code 2. Some causes: (1) it
was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed.
Node ID: 5b05. Prevent node deaths by resource contention, out of memory for one"""


def died(message: str) -> ActorDiedError:
    """The error that Ray makes from its control store's record of an actor."""
    error = ActorDiedError(ActorDiedErrorContext(error_message=message, actor_id=bytes(16), class_name="W"))
    error.args = ()  # as `ray.get` raises it
    return error


def unhealthy(error: Exception) -> Exception:
    """As Ray Train hands over a worker that cannot be asked any more."""
    return WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: 1", failure=error)


def sent(error: Exception) -> Exception:
    """As it comes from another process."""
    return cloudpickle.loads(cloudpickle.dumps(error))


def in_training(error: Exception) -> Exception:
    """As Ray Train hands over what a worker raised."""
    return sent(UserExceptionWithTraceback(error, "".join(traceback.format_exception(error))))


def in_task(error: Exception) -> Exception:
    """As Ray hands over what a task or an actor's method raised."""
    return sent(RayTaskError("f", "".join(traceback.format_exception(error)), error))


def in_task_dual(error: Exception) -> Exception:
    """As `ray.get` raises it: an instance of both types."""
    return sent(RayTaskError("f", "x", error).as_instanceof_cause())


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        ({1: unhealthy(died(f"The actor died unexpectedly. {EVERY_CAUSE}"))}, "worker 1 was killed"),
        ({1: died(f"The actor died. {EVERY_CAUSE}")}, "worker 1 was killed"),
        ({0: died("The actor died because its node has died.")}, "worker 0 was killed with its node"),
        ({0: ray.exceptions.NodeDiedError("gone")}, "worker 0 was killed with its node"),
        (
            {0: ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory")},
            "worker 0 ran out of memory",
        ),
        ({0: died("Task was killed due to the node running low on memory.")}, "worker 0 ran out of memory"),
        ({0: in_training(torch.OutOfMemoryError("CUDA out of memory."))}, "worker 0 ran out of memory"),
        ({0: in_training(RuntimeError("CUDA error: out of memory"))}, "worker 0 ran out of memory"),
        ({0: in_training(MemoryError())}, "worker 0 ran out of memory"),
        (
            {
                0: in_training(RuntimeError("gloo: Connection closed by peer")),
                1: unhealthy(died(EVERY_CAUSE)),
            },
            "worker 1 was killed",
        ),
        (
            {1: RuntimeError("[/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")},
            "worker 1 lost the connection to another worker",
        ),
        (
            {
                1: torch.distributed.DistBackendError(
                    "NCCL error: remote process exited or there was a network error"
                )
            },
            "worker 1 lost the connection to another worker",
        ),
        (
            {0: in_training(RuntimeError("Timed out waiting 900000ms for recv"))},
            "worker 0 waited too long for the other workers (Timed out waiting 900000ms for recv)",
        ),
        (
            {0: ValueError("a\nb is wrong"), 2: ValueError("c")},
            "worker 0 failed: b is wrong; worker 2 failed: c",
        ),
        ({0: in_training(KeyError("fc.weight"))}, "worker 0 failed: KeyError: 'fc.weight'"),
        ({0: in_training(AssertionError())}, "worker 0 failed: AssertionError"),
    ],
)
def test_failures_are_described_in_one_line(errors: dict[int, Exception], line: str) -> None:
    assert describe_exceptions(errors) == line
    assert describe_exceptions({rank: sent(error) for rank, error in errors.items()}) == line


def test_a_collective_of_ray_train_that_times_out() -> None:
    error = BroadcastCollectiveTimeoutError(12.0, [1], 10.0)
    assert failure_of(in_training(error)).kind == FailureKind.COLLECTIVE_TIMEOUT


@pytest.mark.parametrize(
    "wrapped", [sent, in_training, in_task, in_task_dual, lambda e: unhealthy(in_task(e))]
)
def test_storage_and_data_that_fail_are_known_by_their_type(
    wrapped: Callable[[Exception], Exception],
) -> None:
    """Whatever words they quote: lost connections, time that is over, processes that died."""

    def away() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer; the actor died, timed out")

    with pytest.raises(StorageError) as caught:
        with_retries(
            away, "checkpoint s3://a/state.pt could not be written", retry_timeout_s=0, note=lambda _: None
        )
    failure = failure_of(wrapped(caught.value))
    assert failure.kind == FailureKind.STORAGE
    assert str(failure).startswith("failed: ")
    assert "checkpoint s3://a/state.pt could not be written, tried for 0 s (ConnectionResetError" in str(
        failure
    )
    late = DataError("s3://b/0.tar: tried for 60 s (ConnectTimeoutError: Connect timeout on endpoint URL)")
    failure = failure_of(wrapped(late))
    assert failure.kind == FailureKind.DATA
    assert "s3://b/0.tar" in str(failure)


@pytest.mark.parametrize(
    "error", [ValueError("timed out"), OSError("connection reset by peer"), KeyError("timeout")]
)
def test_words_of_other_errors_prove_nothing(error: Exception) -> None:
    assert failure_of(in_training(error)).kind == FailureKind.OTHER


def test_a_peer_is_lost_to_storage_that_fails() -> None:
    storage = in_training(StorageError(errno.ENOSPC, "a could not be written"))
    lost = in_training(RuntimeError("Connection closed by peer"))
    assert describe_exceptions({1: lost, 0: storage}) == (
        "worker 0 failed: [Errno 28] a could not be written; worker 1 lost the connection to another worker"
    )
