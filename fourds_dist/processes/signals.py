"""Signal handlers of commands."""

from __future__ import annotations

import signal

from fourds_dist.processes.interrupt import repeat_ignored_interrupts


def sigterm_as_ctrl_c() -> None:
    """Make SIGTERM raise KeyboardInterrupt, also if a shell made this process ignore Ctrl-C (`... &`)."""
    repeat_ignored_interrupts()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
