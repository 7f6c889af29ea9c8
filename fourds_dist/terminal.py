"""Text on its way to a terminal: names in it are shown as they are, and none of them steers the terminal.

Names of data sets, classes, files, runs and members of tars come from outside. Rich reads square brackets in a string
as markup and `:name:` as an emoji; a terminal obeys control characters. So every string that goes into a table, a title
or a console goes through `words`, and every line that is printed plainly through `say`.
"""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.text import Text

_STEERING = frozenset({"Cc", "Cs"})
"""Unicode categories: control characters (ESC among them), and surrogates, which stand for bytes that are no text."""

_REORDERING = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029"
)
"""Characters that change the order in which a terminal shows the others, or end a line."""


def harmless(text: str) -> str:
    r"""The text with characters that steer a terminal spelled out, as in `\x1b`; ends of lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(c) if _steers(c) else c for c in text)


def in_line(text: str) -> str:
    r"""The same with ends of lines and tabs spelled out too, as in `\n`: a name in a listing takes one line."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def words(text: str) -> Text:
    """The text for rich, neither read as markup nor obeyed by the terminal."""
    from rich.text import Text  # here, since errors are printed without rich

    return Text(harmless(text))


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print a line; what the stream's encoding lacks is spelled out.

    Args:
        file: where to; None: standard output.
    """
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(harmless(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _steers(character: str) -> bool:
    return character not in "\n\t" and (
        unicodedata.category(character) in _STEERING or character in _REORDERING
    )


def _spelled(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
