"""A thread interrupts the main thread, also where Ctrl-C is ignored."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from fourds_dist.processes.interrupt import interrupt_main_thread
from fourds_dist.processes.signals import sigterm_as_ctrl_c


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted() -> None:
    thread = threading.Thread(target=interrupt_main_thread)
    thread.start()
    thread.join()
    threading.Event().wait(10)


def test_a_thread_interrupts_the_main_thread() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_where_ctrl_c_is_ignored_sigterm_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sigterm_as_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
