"""The interruption of this process: by one of its threads, and again where Python ignored an interrupt.

Python raises KeyboardInterrupt wherever the main thread is. In a destructor or in a callback of the garbage collector
the exception is reported to `sys.unraisablehook` and then ignored: the process would go on.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

REPEAT_S = 0.05
"""Seconds after which an ignored interrupt is repeated."""


def interrupt_main_thread() -> None:
    """Send SIGINT to the main thread, or SIGTERM if this process ignores SIGINT; repeat an ignored interrupt."""
    repeat_ignored_interrupts()
    _send()


def repeat_ignored_interrupts() -> None:
    """Interrupt the main thread again whenever a destructor or a garbage collector's callback got KeyboardInterrupt."""
    report = sys.unraisablehook
    if getattr(report, "repeats_interrupts", False):
        return

    def repeat_or_report(unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        timer = threading.Timer(REPEAT_S, _send)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # the interpreter is ending: no thread can start
            timer.start()

    repeat_or_report.repeats_interrupts = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = repeat_or_report


def _send() -> None:
    main = threading.main_thread().ident
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    if main is not None:
        signal.pthread_kill(main, number)
