"""A thread interrupts the main thread, also where Ctrl-C is ignored."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fourds_dist.processes.interrupt import interrupt_main_thread, repeat_ignored_interrupts
from fourds_dist.processes.signals import sigterm_as_ctrl_c


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    report = sys.unraisablehook
    yield
    sys.unraisablehook = report
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


class WaitsAtItsEnd:
    """An object whose destructor lasts long enough to get the interrupt."""

    def __del__(self) -> None:
        time.sleep(0.5)


def test_an_interrupt_that_a_destructor_got_is_repeated() -> None:
    def drop() -> None:
        waits.clear()
        threading.Event().wait(10)

    waits = [WaitsAtItsEnd()]
    threading.Timer(0.1, interrupt_main_thread).start()
    with pytest.raises(KeyboardInterrupt):
        drop()


def test_sigterm_in_a_callback_of_the_garbage_collector_is_repeated() -> None:
    def once(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(once)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(0.1)

    def collect() -> None:
        gc.collect()
        threading.Event().wait(10)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sigterm_as_ctrl_c()
    gc.callbacks.append(once)
    with pytest.raises(KeyboardInterrupt):
        collect()


def test_other_exceptions_of_destructors_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    repeat_ignored_interrupts()
    repeat_ignored_interrupts()

    class Fails:
        def __del__(self) -> None:
            raise OSError

    Fails()
    assert reported == [OSError]
