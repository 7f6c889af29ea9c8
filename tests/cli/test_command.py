"""What all commands do alike: leaving in order."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

import pytest

from fourds_dist.cli import export
from fourds_dist.cli.command import run_command
from fourds_dist.processes.parent_death import bound


@pytest.mark.parametrize(
    "words",
    ["run shipped --formats onnx", "run --formats onnx shipped", "--formats onnx run shipped"],
)
def test_options_may_stand_between_arguments(words: str) -> None:
    given: list[argparse.Namespace] = []
    assert run_command(export.parser(), words.split(), given.append) == 0  # pyright: ignore[reportArgumentType]
    assert [(options.student, options.dest, options.formats) for options in given] == [
        ("run", "shipped", "onnx")
    ]


WAITS = """
import time
import pytest

from fourds_dist.cli import export
from fourds_dist.cli.command import run_command
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
