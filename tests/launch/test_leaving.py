"""A run that is told to leave: whoever asked is heard, also where the workers were done or had a notice of Ray's."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fourds_dist.launch import ray_train, worker
from fourds_dist.launch.ray_train import _fit_until_told, run_stage_on_ray
from fourds_dist.launch.worker import PREEMPTION_POLL_S, Ending, Line
from fourds_dist.runs.events import Note
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.settings import Settings
from fourds_dist.training.stop import Stopped

INTERRUPTED = StopReason(StopKind.INTERRUPTED)
PREEMPTED = StopReason(StopKind.PREEMPTED, (1,))


class Board:
    """Takes the driver's wish to stop."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.stop = SimpleNamespace(remote=lambda reason: self.told.set())


class Trainer:
    """Whose workers leave once they are told to, in their own way."""

    def __init__(self, board: Board, ending: Ending) -> None:
        self.board, self.ending = board, ending

    def fit(self) -> Any:
        assert self.board.told.wait(300)
        return SimpleNamespace(return_value=tuple(self.ending))


def sends(number: int) -> Callable[[], None]:
    """What the driver calls while it waits: there, a signal comes."""
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", [Ending("done"), Ending("stopped", PREEMPTED, 7)])
def test_ctrl_c_is_heard_where_the_workers_left_for_another_reason(ending: Ending, number: int) -> None:
    board = Board()
    with pytest.raises(KeyboardInterrupt):
        _fit_until_told(Trainer(board, ending), board, 300, sends(number))  # pyright: ignore
    assert board.told.is_set()


def test_workers_that_left_for_it_tell_of_their_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    ending = Ending("stopped", INTERRUPTED, 120)
    assert _fit_until_told(Trainer(board, ending), board, 300, sends(signal.SIGINT)) == ending  # pyright: ignore
    monkeypatch.setattr(ray_train, "_fit", lambda *_: ending)
    with pytest.raises(
        Stopped, match=r"^stopped by Ctrl-C or SIGTERM at step 120, with a checkpoint; the same"
    ):
        run_stage_on_ray("source", Settings(), print)


def test_a_reason_of_the_driver_s_own_counts_before_a_notice() -> None:
    board = Board()
    trainer: Any = Trainer(board, Ending("stopped", PREEMPTED, 7))
    reason = StopReason(StopKind.SWEEP_ENDED)
    assert _fit_until_told(trainer, board, 300, lambda: reason) == Ending("stopped", reason, 7)


def test_a_notice_does_not_hide_what_the_driver_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = SimpleNamespace(preempted_ranks=[1])
    monkeypatch.setattr(worker.ray.train, "get_preemption_info", lambda: notice)
    monkeypatch.setattr(worker.ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(worker.ray, "get", lambda answer: answer)
    line = Line(SimpleNamespace(put=SimpleNamespace(remote=lambda event: INTERRUPTED)))
    assert line.told_to_stop(PREEMPTION_POLL_S) == PREEMPTED
    line = Line(SimpleNamespace(put=SimpleNamespace(remote=lambda event: INTERRUPTED)))
    line.put(Note(step=1, text=""))
    assert line.told_to_stop(PREEMPTION_POLL_S) == INTERRUPTED
