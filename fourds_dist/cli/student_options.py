"""The option --student, which selects one of several students of a run."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fourds_dist.io.terminal import say

if TYPE_CHECKING:
    from fourds_dist.inference.student import Student


def add_student_name(parser: argparse.ArgumentParser) -> None:
    """Add --student."""
    parser.add_argument(
        "--student",
        dest="student_name",
        metavar="NAME",
        help="one of several students of the run (default: the best one on the validation split)",
    )


def load_named_student(options: argparse.Namespace) -> Student:
    """Load the student of `options.student`; of several that of --student, or the best one, which is reported.

    Raises:
        ValueError: see `load_student`.
    """
    from fourds_dist.inference.loading import FORMATS, load_student

    student = load_student(options.student, options.student_name)
    name = student.about.get("student")
    if name and options.student_name is None and not options.student.endswith(FORMATS):
        say(
            f"student {name}: the best one of the run on the validation split (--student NAME: another one)",
            file=sys.stderr,
        )
    return student
