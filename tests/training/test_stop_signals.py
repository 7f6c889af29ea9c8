"""Stop requests by signals: the first asks for a checkpoint, the second interrupts."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.training.stop_signals import Stopped, catch_signals, never


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, StopKind.CTRL_C), (signal.SIGTERM, StopKind.SIGTERM)]
)
def test_each_signal_has_its_reason(number: signal.Signals, kind: StopKind) -> None:
    before = signal.getsignal(number)
    with catch_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop(1.0) == StopReason(kind)
        assert stop(2.0) == StopReason(kind)
    assert signal.getsignal(number) is before


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), catch_signals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_have_no_handlers() -> None:
    found = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with catch_signals() as stop:
            found.append((stop, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(never, before)]
    assert never(1e9) is None


def test_a_stop_is_told_with_its_step() -> None:
    reason = StopReason(StopKind.SIGTERM)
    assert str(Stopped(reason, 7)) == reason.at_step(7)
    assert "at step 7" in str(Stopped(reason, 7))


def test_the_first_signal_asks_and_the_second_does_not() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals() as stop:
        assert stop(0.0) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop(0.0) == StopReason(StopKind.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
