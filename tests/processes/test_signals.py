"""Signal handlers of commands."""

from __future__ import annotations

import os
import signal

import pytest

from fourds_dist.processes.signals import sigterm_as_ctrl_c


@pytest.mark.parametrize("of_ctrl_c", [signal.SIG_IGN, signal.default_int_handler])
def test_sigterm_raises_keyboard_interrupt_also_where_ctrl_c_is_ignored(of_ctrl_c: signal.Handlers) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, of_ctrl_c)
    try:
        sigterm_as_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is of_ctrl_c
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
