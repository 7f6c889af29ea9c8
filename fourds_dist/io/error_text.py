"""Errors as text of at most one screen."""

from __future__ import annotations

MOST_LINES = 20
"""Lines of an error that are shown."""
MOST_CHARACTERS = 1500
"""Characters of a line that are shown; values from files may be of any length."""


def one_line(error: BaseException, most: int = 200) -> str:
    """Return the message of an error in one line of at most `most` characters; its type if it has no message."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def error_line(error: BaseException, most: int = 160) -> str:
    """Return the type of an error and, if it has one, its message in one line of at most `most` characters."""
    kind, text = type(error).__name__, one_line(error, most)
    return kind if text == kind else f"{kind}: {text}"


def format_error(error: Exception) -> str:
    """Return an error as text: the message of expected errors; other errors are marked as unexpected."""
    text = str(error)
    if not isinstance(error, ValueError | RuntimeError | OSError | FloatingPointError):
        text = f"unexpected {type(error).__name__}: {text} (a fault in fourds_dist; --traceback shows where)"
    lines = text.splitlines() or [type(error).__name__]
    shown = lines[:MOST_LINES] + (
        [f"... ({len(lines) - MOST_LINES} more lines)"] if len(lines) > MOST_LINES else []
    )
    return "error: " + "\n".join(
        line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ... ({len(line)} characters)"
        for line in shown
    )
