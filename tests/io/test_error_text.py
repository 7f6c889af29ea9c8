"""Errors take at most one screen, and unexpected ones are marked."""

from __future__ import annotations

import pytest

from fourds_dist.io.error_text import MOST_CHARACTERS, MOST_LINES, error_line, format_error, one_line


def test_one_line() -> None:
    assert one_line(ValueError("  a\n\tb  c ")) == "a b c"
    assert one_line(ValueError("x" * 300)) == "x" * 200
    assert one_line(ValueError("x" * 300), 5) == "xxxxx"
    assert one_line(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), RuntimeError("a\nb"), OSError("a\nb"), FloatingPointError("a\nb")]
)
def test_expected_errors_are_their_messages(error: Exception) -> None:
    assert format_error(error) == "error: a\nb"


def test_unexpected_errors_are_marked() -> None:
    assert (
        format_error(KeyError("a"))
        == "error: unexpected KeyError: 'a' (a fault in fourds_dist; --traceback shows where)"
    )
    assert format_error(FileNotFoundError(2, "No such file", "x")) == "error: [Errno 2] No such file: 'x'"
    assert format_error(ValueError()) == "error: ValueError"


def test_long_messages_are_cut_with_what_is_left_out() -> None:
    lines = [str(n) for n in range(MOST_LINES + 3)]
    assert format_error(ValueError("\n".join(lines[:MOST_LINES]))) == "error: " + "\n".join(
        lines[:MOST_LINES]
    )
    assert format_error(ValueError("\n".join(lines))).splitlines()[MOST_LINES:] == ["... (3 more lines)"]
    most = "x" * MOST_CHARACTERS
    assert (
        format_error(ValueError(f"{most}\n{most}y"))
        == f"error: {most}\n{most} ... ({MOST_CHARACTERS + 1} characters)"
    )


def test_an_error_in_one_line() -> None:
    assert error_line(KeyError("a\n b")) == "KeyError: 'a\\n b'"
    assert error_line(OSError("a\n\tb")) == "OSError: a b"
    assert error_line(OSError("x" * 500)) == "OSError: " + "x" * 160
    assert error_line(TimeoutError()) == "TimeoutError"
