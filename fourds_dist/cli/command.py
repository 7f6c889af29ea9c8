"""Common part of all commands: parse arguments, run, and turn errors into one line and an exit status.

Exit status: 0 done, 1 refused or failed, 2 unknown arguments, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fourds_dist.io.error_text import format_error
from fourds_dist.io.names import write_any_name
from fourds_dist.io.terminal import say
from fourds_dist.processes.interrupt import repeat_ignored_interrupts

if TYPE_CHECKING:
    from fourds_dist.config.section import ConfigSection

KEYS_BESIDES = "keys, besides those of the run (`python -m fourds_dist.train --help`):"


ExitStatus = int | None
"""Exit status; None: 0."""


def command_parser(prog: str, description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with the option of `run_command`; its --help keeps the lines of `description`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="raise errors with a traceback")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], ExitStatus],
) -> int:
    """Run `work` on the parsed arguments; return the exit status.

    An error is printed in one line; the parser's option `--traceback` raises the error instead.
    """
    write_any_name()
    repeat_ignored_interrupts()
    options = _parsed(parser, arguments)
    try:
        return work(options) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has ended: `fourds predict ... | head`
        sys.stderr.close()
        return 1
    except Exception as error:
        if options.traceback:
            raise
        say(format_error(error), file=sys.stderr)
        return 1


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments whose options may stand between them: STUDENT --formats onnx DEST."""
    try:
        return parser.parse_intermixed_args(arguments)
    except TypeError:  # a parser with subcommands, whose arguments cannot be intermixed
        return parser.parse_args(arguments)


def keys(root: type[ConfigSection], title: str) -> str:
    """Return all keys of a configuration with their meaning, for the end of a command's --help."""
    from fourds_dist.config.keys import describe

    lines = [title]
    for key, kind, default, meaning in describe(root):
        lines.append(f"  {key} ({kind}, default {default})\n      {meaning}")
    return "\n".join(lines)
