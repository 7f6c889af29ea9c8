"""What all commands do alike: leaving in order."""

from __future__ import annotations

import signal
import subprocess
import sys

from fourds_dist.processes.parent_death import bound

WAITS = """
import time
from fourds_dist.processes.signals import sigterm_as_ctrl_c
sigterm_as_ctrl_c()
try:
    print("ready", flush=True)
    time.sleep(1000)
except KeyboardInterrupt:
    print("left in order")
"""


def test_sigterm_is_heard_where_a_shell_has_ctrl_c_ignored() -> None:
    """As by `fourds compare ... &` in a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits it
    try:
        child = subprocess.Popen(bound([sys.executable, "-c", WAITS]), stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.terminate()
    out, _ = child.communicate(timeout=300)
    assert (out, child.returncode) == ("left in order\n", 0)
