"""fourds: everything in one place.

    fourds train CONFIG.yaml launch.workers=4      the same as python -m fourds_dist.train CONFIG.yaml launch.workers=4
    fourds COMMAND --help                          what a command takes
    fourds doctor s3://bucket                      whether this machine is ready, and what to do where it is not
    source <(fourds completion bash)               completion of commands, options and keys; also zsh and fish

Every command is also a module. Exit status: 0 done, 1 refused or failed, 2 words not understood, 130 stopped by Ctrl-C.
An error is told in one screen; --traceback shows where it was raised.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import fourds_dist
from fourds_dist.command import told
from fourds_dist.terminal import say

COMMANDS = {
    "pack": "images become dataset folders of shards",
    "train": "the teacher on the source, then 4Ds on the target",
    "tune": "many runs, to find the best settings",
    "compare": "methods side by side, on pairs of domains with several seeds",
    "report": "a run in one page, or several side by side",
    "evaluate": "how good a student is on labelled images",
    "predict": "what a student says of image files",
    "export": "a student in formats that run without fourds_dist",
    "benchmark": "how fast operators, steps and data are here",
    "doctor": "whether this machine is ready to train",
    "completion": "completion for bash, zsh or fish",
}
"""Command -> what it does; each is the module of its name, imported only when it is asked for."""

_ENTRIES = {"benchmark": "fourds_dist.benchmark.__main__", "compare": "fourds_dist.compare.__main__"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `fourds`; gives the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"fourds_dist {fourds_dist.__version__}")
        return 0
    command, *rest = words
    if command not in available():
        near = difflib.get_close_matches(command, available(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(available())}"
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
        say(told(error), file=sys.stderr)
        return 1


def available() -> list[str]:
    """Commands whose modules are there."""
    return [command for command in COMMANDS if importlib.util.find_spec(_module(command)) is not None]


def _find_modules_here() -> None:
    """Put the working folder, where users' networks lie, first among the places of modules, as `python -m` does."""
    with suppress(FileNotFoundError):  # the working folder was removed
        here = str(Path.cwd())
        if not sys.flags.safe_path and sys.path[:1] != [here]:
            sys.path.insert(0, here)


def _module(command: str) -> str:
    return _ENTRIES.get(command, f"fourds_dist.{command}")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {COMMANDS[command]}" for command in available()]
    return f"{(__doc__ or '').strip()}\n\ncommands:\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
