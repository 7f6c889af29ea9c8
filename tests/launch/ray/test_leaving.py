"""A run with a stop request: every kind of request stops it, also after the workers finished or got Ray's notice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fourds_dist.launch.ray import train as ray_train
from fourds_dist.launch.ray.train import _fit_until_stopped, run_stage_on_ray
from fourds_dist.launch.ray.worker import StageExit
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped

INTERRUPTED = StopReason(StopKind.INTERRUPTED)
PREEMPTED = StopReason(StopKind.PREEMPTED, (1,))


class EventChannel:
    """Takes the driver's wish to stop."""

    def __init__(self) -> None:
        self.describe_failures = threading.Event()
        self.stop = SimpleNamespace(remote=lambda reason: self.describe_failures.set())


class Trainer:
    """A stage whose workers leave after a stop request, each in its own way."""

    def __init__(self, channel: EventChannel, ending: StageExit) -> None:
        self.channel, self.ending = channel, ending

    def fit(self) -> Any:
        assert self.channel.describe_failures.wait(300)
        return SimpleNamespace(return_value=tuple(self.ending))


def sends(number: int) -> Callable[[], None]:
    """What the driver calls while it waits: there, a signal comes."""
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", [StageExit("done"), StageExit("stopped", PREEMPTED, 7)])
def test_ctrl_c_is_heard_where_the_workers_left_for_another_reason(ending: StageExit, number: int) -> None:
    channel = EventChannel()
    with pytest.raises(KeyboardInterrupt):
        _fit_until_stopped(Trainer(channel, ending), channel, 300, sends(number))  # pyright: ignore
    assert channel.describe_failures.is_set()


def test_workers_that_left_for_it_tell_of_their_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = EventChannel()
    ending = StageExit("stopped", INTERRUPTED, 120)
    assert _fit_until_stopped(Trainer(channel, ending), channel, 300, sends(signal.SIGINT)) == ending  # pyright: ignore
    monkeypatch.setattr(ray_train, "_fit", lambda *_: ending)
    with pytest.raises(
        Stopped, match=r"^stopped by Ctrl-C or SIGTERM at step 120, with a checkpoint; the same"
    ):
        run_stage_on_ray("source", Settings(), print)


def test_a_reason_of_the_driver_s_own_counts_before_a_notice() -> None:
    channel = EventChannel()
    trainer: Any = Trainer(channel, StageExit("stopped", PREEMPTED, 7))
    reason = StopReason(StopKind.SWEEP_ENDED)
    assert _fit_until_stopped(trainer, channel, 300, lambda: reason) == StageExit("stopped", reason, 7)
