"""Safe output to terminals: names from outside are printed literally and cannot control the terminal.

Names of data sets, classes, files, runs and members of tars come from outside. Rich reads square brackets as markup and
`:name:` as an emoji, and terminals execute control characters. Strings for Rich tables, titles and consoles therefore
pass through `words`, and lines that are printed directly pass through `say`.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.text import Text

_CONTROL = frozenset({"Cc", "Cs"})
"""Unicode categories: control characters such as ESC, and surrogates, which represent bytes that are not text."""

_REORDERING = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029"
)
"""Characters that change the order of other characters on a terminal, or end a line."""


def harmless(text: str) -> str:
    r"""Return the text with control characters escaped, as in `\x1b`; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if _is_control(c) else c for c in text)


def in_line(text: str) -> str:
    r"""Return the text on one line: as `harmless`, with newlines and tabs escaped too."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def words(text: str) -> Text:
    """Return the text for Rich, without markup and control characters."""
    from rich.text import Text  # imported here, since printing errors does not need Rich

    return Text(harmless(text))


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print a line; characters that the stream cannot encode are escaped.

    Args:
        file: the stream; None: standard output.
    """
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(harmless(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _is_control(character: str) -> bool:
    return character not in "\n\t" and (
        unicodedata.category(character) in _CONTROL or character in _REORDERING
    )


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
