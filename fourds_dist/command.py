"""What all commands do alike: parse, run, and turn what went wrong into one line and an exit status.

0 done, 1 refused or failed, 2 words that the command does not understand, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fourds_dist.data.text import write_any_name
from fourds_dist.terminal import say

if TYPE_CHECKING:
    from fourds_dist.config import Section

MOST_LINES = 20
MOST_CHARACTERS = 1500
"""Of a line of an error: what a file holds may be of any length."""
KEYS_BESIDES = "keys, besides those of the run (`python -m fourds_dist.train --help`):"

Answer = int | None
"""Exit status; None: 0."""


def answered(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], Answer],
) -> int:
    """Run `work` on the parsed words; gives the exit status.

    An error is shown in one line; with the parser's option `--traceback` it is raised instead.
    """
    write_any_name()
    options = parser.parse_args(arguments)
    try:
        return work(options) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `fourds predict ... | head`
        sys.stderr.close()
        return 1
    except Exception as error:
        if options.traceback:
            raise
        say(told(error), file=sys.stderr)
        return 1


def interrupt_at_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does: in order; also where a shell has it ignore Ctrl-C (`... &`)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def keys(root: type[Section], title: str) -> str:
    """Every key of a configuration with its meaning, for the end of a command's --help."""
    from fourds_dist.config import describe

    lines = [title]
    for key, kind, default, meaning in describe(root):
        lines.append(f"  {key} ({kind}, default {default})\n      {meaning}")
    return "\n".join(lines)


def told(error: Exception) -> str:
    """An error in one screen: what users can mend as it says itself, what is a fault of ours as such."""
    text = str(error)
    if not isinstance(error, ValueError | RuntimeError | OSError | FloatingPointError):
        text = (
            f"unexpected {type(error).__name__}: {text} (a fault of fourds_dist's; --traceback shows where)"
        )
    lines = text.splitlines() or [type(error).__name__]
    shown = lines[:MOST_LINES] + (
        [f"... ({len(lines) - MOST_LINES} more lines)"] if len(lines) > MOST_LINES else []
    )
    return "error: " + "\n".join(
        line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} ... ({len(line)} characters)"
        for line in shown
    )
