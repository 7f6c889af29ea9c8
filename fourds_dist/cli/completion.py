"""Completion: a shell script that completes commands, their options, and configuration keys.

source <(fourds completion bash)                                   for this shell; in ~/.bashrc for all shells
source <(fourds completion zsh)
fourds completion fish > ~/.config/fish/completions/fourds.fish

The script holds all words, so that completion does not start Python; write the script again after an update. Other
words are completed as files.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import sys

from fourds_dist.cli.command import ExitStatus, run_command

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_fourds() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" words
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"
  else case "${{COMP_WORDS[1]}}" in
{cases}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ ${{#COMPREPLY[@]}} -eq 1 && $COMPREPLY == *= ]] && compopt -o nospace
}}
complete -o default -o bashdefault -F _fourds fourds
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="fourds completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--traceback", action="store_true", help="raise errors with a traceback")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry of `fourds completion`; return the exit status."""
    return run_command(parser(), arguments, _print)


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    words = words_by_command()
    if shell == "fish":
        lines = ["complete -c fourds -n __fish_use_subcommand -f -a '" + " ".join(words) + "'"]
        for command, known in words.items():
            if known:
                seen = f"__fish_seen_subcommand_from {command}"
                lines.append(f"complete -c fourds -n '{seen}' -a '{' '.join(known)}'")
        return "\n".join(lines) + "\n"
    cases = "\n".join(f'    {command}) words="{" ".join(known)}" ;;' for command, known in words.items())
    bash = _BASH.format(commands=" ".join(words), cases=cases)
    return "autoload -U +X bashcompinit && bashcompinit\n" + bash if shell == "zsh" else bash


def words_by_command() -> dict[str, list[str]]:
    """Return command -> its options, subcommands and keys, read from its --help."""
    from fourds_dist.cli.dispatch import _module, available

    words: dict[str, list[str]] = {}
    for command in available():
        if command == "completion":
            words[command] = list(SHELLS)
            continue
        text = _help_of(_module(command))
        options = re.findall(r"^  (?:-\w, )?(--[a-z][a-z-]+)", text, re.MULTILINE)
        keys = [f"{key}=" for key in re.findall(r"^  ([a-z_]+(?:\.[a-z_]+)+) \(", text, re.MULTILINE)]
        firsts = (
            re.findall(r"^    ([a-z][a-z0-9-]+)  ", text, re.MULTILINE)
            if command in ("pack", "benchmark")
            else []
        )
        words[command] = sorted(dict.fromkeys([*firsts, *options, *keys]))
    return words


def _help_of(module: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
    return out.getvalue()


def _print(options: argparse.Namespace) -> ExitStatus:
    sys.stdout.write(script(options.shell))
    return None


if __name__ == "__main__":
    sys.exit(main())
