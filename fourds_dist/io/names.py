"""Names of classes, files and samples in one Unicode form.

macOS and its archives spell ö as o and a combining mark (NFD); other systems use one character (NFC). Both look alike
but are unequal. Every name from outside (a folder, a list, a class list, a manifest, a label in a tar) is therefore
converted to NFC where it is read.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from io import TextIOWrapper


def composed(text: str) -> str:
    """Return the text in the form NFC, in which names that look alike are equal."""
    return unicodedata.normalize("NFC", text)


def shown(name: object) -> str:
    """Return a name or path that any stream can print; bytes that are not UTF-8 are shown as \\xf6."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


def check_text(name: str, what: str) -> None:
    """Refuse a name that is not UTF-8, since manifests and tars hold text.

    Args:
        what: the thing with this name, for the message.

    Raises:
        ValueError: the name is not UTF-8; the message shows the name.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} has a name that is not in UTF-8: {shown(name)}; rename it (names in Latin-1: "
            "`convmv -f latin1 -t utf8`)"
        ) from None


def write_any_name() -> None:
    """Make standard output and error escape characters that they cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
