"""Doctor: whether this machine is ready to train, and what to do where it is not.

fourds doctor                                  versions, GPUs, Ray, W&B, optional parts
fourds doctor s3://bucket/photos s3://bucket/runs   also whether storage can be read and written
fourds doctor --quick                          without starting Ray

Storage is tried by writing a few bytes and removing them. Exit status 1 where something that training needs is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from fourds_dist.checks import Finding, Level
from fourds_dist.command import Answer, answered
from fourds_dist.terminal import say

_MARKS = {Level.GOOD: "ok  ", Level.NOTE: "note", Level.BAD: "FAIL"}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="fourds doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", metavar="URL", nargs="*", help="storage to try: folders of data or runs")
    parser.add_argument("--quick", action="store_true", help="do not start Ray")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `fourds doctor`; gives the exit status."""
    return answered(parser(), arguments, _examine)


def _examine(options: argparse.Namespace) -> Answer:
    from fourds_dist import checks

    looks: list[Callable[[], Iterator[Finding]]] = [
        checks.python,
        checks.packages,
        checks.devices,
        checks.memory,
    ]
    if not options.quick:
        looks.append(checks.ray_starts)
    looks += [checks.tracking, checks.extras]
    looks += [lambda url=url: checks.storage(url) for url in options.urls]
    num_bad = 0
    for look in looks:
        for finding in look():
            num_bad += finding.level is Level.BAD
            say(f"{_MARKS[finding.level]}  {finding.what}")
            if finding.remedy:
                say(f"      {finding.remedy}")
    say("ready to train" if not num_bad else f"{num_bad} to mend before training")
    return 1 if num_bad else 0


if __name__ == "__main__":
    sys.exit(main())
