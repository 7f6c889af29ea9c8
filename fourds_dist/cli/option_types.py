"""Types of command-line options: invalid values are refused by the parser, before any work."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

MOST_IMAGES = 65536
"""Bound on images that a command processes at a time."""
MOST = 1_000_000
"""Bound on other counts."""


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option: a whole number from `least` to `most`."""
    span = f"{least} or more" if most is None else f"{least} to {most}"

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number; give {span}") from None
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text[:40]}; give {span}")
        return number

    return parsed


def real(least: float, below: float) -> Callable[[str], float]:
    """Return the type of an option: a number from `least` to less than `below`, not NaN."""

    def parsed(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no number") from None
        if not least <= number < below:
            raise argparse.ArgumentTypeError(f"{text[:40]}; give {least:g} or more, and less than {below:g}")
        return number

    return parsed


def output_file(text: str) -> Path:
    """Parse an option: a local file to write, in an existing folder that can be written."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; give a file in it")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}; make it first")
    try:
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written ({error}); give another path") from None
    return path
