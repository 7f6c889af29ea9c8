"""fourds: all commands of the package.

    fourds train CONFIG.yaml launch.workers=4      the same as python -m fourds_dist.train CONFIG.yaml launch.workers=4
    fourds COMMAND --help                          arguments of a command
    fourds doctor s3://bucket                      check this machine, with a remedy for each fault

Every command is also a module. Exit status: 0 done, 1 refused or failed, 2 unknown arguments, 130 stopped by Ctrl-C.
An error is printed on one screen; --traceback raises the error with a traceback.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fourds_dist.io.error_text import format_error
from fourds_dist.io.terminal import say
from fourds_dist.io.version import __version__

COMMANDS = {
    "pack": "pack images into dataset folders of shards",
    "train": "train the teacher on the source, then 4Ds on the target",
    "tune": "search the best values of keys with many runs",
    "advise": "say which method to take, what it will reach and what it will cost",
    "compare": "compare methods on pairs of domains with several seeds",
    "report": "write the report of a run, or of several runs side by side",
    "evaluate": "evaluate a student on labelled images",
    "predict": "predict the classes of image files",
    "export": "export a student to formats that run without fourds_dist",
    "benchmark": "measure the speed of operators, steps and data on this machine",
    "doctor": "check whether this machine is ready to train",
}
"""Command -> description; each command is a module of its name, imported when the command runs."""

_ENTRIES = {"benchmark": "fourds_dist.benchmark.__main__"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `fourds`; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"fourds_dist {__version__}")
        return 0
    command, *rest = words
    if command not in available():
        near = difflib.get_close_matches(command, available(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(available())}"
        print(f"error: fourds has no command {command!r}; {hint}", file=sys.stderr)
        return 2
    _find_modules_here()
    try:
        return importlib.import_module(_module(command)).main(rest) or 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if "--traceback" in rest:
            raise
        say(format_error(error), file=sys.stderr)
        return 1


def available() -> list[str]:
    """Return the commands whose modules exist."""
    return [command for command in COMMANDS if importlib.util.find_spec(_module(command)) is not None]


def _find_modules_here() -> None:
    """Put the working folder, which may hold user modules, first on the module path, as `python -m` does."""
    with suppress(FileNotFoundError):  # the working folder was removed
        here = str(Path.cwd())
        if not sys.flags.safe_path and sys.path[:1] != [here]:
            sys.path.insert(0, here)


def _module(command: str) -> str:
    return _ENTRIES.get(command, f"fourds_dist.cli.{command}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {COMMANDS[command]}" for command in available()]
    return f"{(__doc__ or '').strip()}\n\ncommands:\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
