"""The interruption of this process from one of its threads."""

from __future__ import annotations

import signal
import threading


def interrupt_main_thread() -> None:
    """Send SIGINT to the main thread, or SIGTERM if this process ignores SIGINT."""
    main = threading.main_thread().ident
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    if main is not None:
        signal.pthread_kill(main, number)
