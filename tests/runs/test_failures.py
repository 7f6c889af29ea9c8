"""Reasons to stop and kinds of failure have messages, and survive the way between processes."""

from __future__ import annotations

import errno
import pickle

import pytest

from fourds_dist.io.errors import StorageError
from fourds_dist.runs.failures import FailureKind, StopKind, StopReason, WorkerFailure, describe_failures
from fourds_dist.training.stop_signals import Stopped


@pytest.mark.parametrize("kind", StopKind)
def test_every_reason_to_stop_has_a_message_of_its_own(kind: StopKind) -> None:
    assert str(StopReason(kind)) not in {str(StopReason(other)) for other in StopKind if other != kind}


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_has_a_message(kind: FailureKind) -> None:
    assert str(WorkerFailure(kind, "why"))


def test_what_is_raised_comes_back_from_a_pickle() -> None:
    stopped = pickle.loads(pickle.dumps(Stopped(StopReason(StopKind.PREEMPTED, (2,)), 7)))
    assert (stopped.reason, stopped.step) == (StopReason(StopKind.PREEMPTED, (2,)), 7)
    assert str(stopped).startswith(
        "stopped by the preemption of a node (worker 2) at step 7, with a checkpoint"
    )
    away = pickle.loads(pickle.dumps(StorageError(errno.ENOSPC, "a could not be written")))
    assert type(away) is StorageError
    assert away.errno == errno.ENOSPC
    assert isinstance(away, OSError)


def test_workers_that_died_are_named_before_those_that_lost_them() -> None:
    failures = {
        2: WorkerFailure(FailureKind.PEER_LOST),
        1: WorkerFailure(FailureKind.KILLED),
        0: WorkerFailure(FailureKind.COLLECTIVE_TIMEOUT, "timed out"),
    }
    assert describe_failures(failures) == "worker 1 was killed"
    del failures[1]
    assert describe_failures(failures) == (
        "worker 0 waited too long for the other workers (timed out); worker 2 lost the connection to another worker"
    )
