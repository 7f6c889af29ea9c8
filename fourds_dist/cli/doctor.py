"""Doctor: check whether this machine is ready to train, with a remedy for each fault.

fourds doctor                                  versions, GPUs, Ray, W&B, optional parts
fourds doctor s3://bucket/photos s3://bucket/runs   also read and write storage
fourds doctor --quick                          without starting Ray, and without importing DeepSpeed and W&B

The storage check writes a few bytes and removes them. Exit status: 1 if training does not work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from fourds_dist.cli.checks import Finding, Level
from fourds_dist.cli.command import ExitStatus, command_parser, run_command
from fourds_dist.io.terminal import say

_MARKS = {Level.GOOD: "ok  ", Level.NOTE: "note", Level.BAD: "FAIL"}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("fourds doctor", __doc__)
    parser.add_argument("urls", metavar="URL", nargs="*", help="storage to check: folders of data or runs")
    parser.add_argument("--quick", action="store_true", help="do not start Ray, nor import DeepSpeed and W&B")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `fourds doctor`; return the exit status."""
    return run_command(parser(), arguments, _check)


def _check(options: argparse.Namespace) -> ExitStatus:
    from fourds_dist.cli import checks

    to_run: list[Callable[[], Iterator[Finding]]] = [
        checks.python,
        checks.packages,
        checks.devices,
        checks.memory,
    ]
    if not options.quick:
        to_run += [checks.ray_starts, checks.libraries]
    to_run += [checks.tracking, checks.extras]
    to_run += [lambda url=url: checks.storage(url) for url in options.urls]
    num_bad = 0
    for check in to_run:
        for finding in check():
            num_bad += finding.level is Level.BAD
            say(f"{_MARKS[finding.level]}  {finding.what}")
            if finding.fix:
                say(f"      {finding.fix}")
    say("ready to train" if not num_bad else f"{num_bad} to fix before training")
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main())
