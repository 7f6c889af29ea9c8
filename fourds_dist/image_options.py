"""Options of commands that read images: how a student's preprocessing is changed for once."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourds_dist.results.student import Student


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """--grey-range and --max-megapixels."""
    parser.add_argument(
        "--grey-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="black and white of images of more than 8 bits (default: as the student was trained)",
    )
    parser.add_argument(
        "--max-megapixels", type=float, metavar="N", help="images may be so large (default: as in training)"
    )


def with_image_options(student: Student, options: argparse.Namespace) -> Student:
    """The student, with the preprocessing that the options ask for.

    Raises:
        ValueError: values that cannot be.
    """
    changes: dict[str, Any] = {}
    if options.grey_range is not None:
        changes["grey_range"] = low, high = tuple(options.grey_range)
        if not low < high:
            raise ValueError(f"--grey-range {low:g} {high:g}: give the lower number first")
    if options.max_megapixels is not None:
        changes["max_megapixels"] = options.max_megapixels
        if not options.max_megapixels > 0:
            raise ValueError(f"--max-megapixels {options.max_megapixels:g}: give more than 0")
    return replace(student, preprocessing=replace(student.preprocessing, **changes))
