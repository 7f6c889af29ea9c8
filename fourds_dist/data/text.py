"""Names as text: of classes, files and samples, in one Unicode form.

macOS and archives made there spell ö as o and a combining mark (NFD), everybody else as one character (NFC). Both look
the same and are unequal. Each name that enters from outside (a folder, a list, a class list, a manifest, a label in a
tar) is composed once, where it enters.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from io import TextIOWrapper


def composed(text: str) -> str:
    """The text in the form NFC, in which equal names are equal."""
    return unicodedata.normalize("NFC", text)


def shown(name: object) -> str:
    """A name or path as it can be written anywhere: bytes that are no UTF-8 as \\xf6."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


def check_text(name: str, what: str) -> None:
    """Refuse a name that holds bytes that are no UTF-8, since manifests and tars hold text.

    Args:
        what: has this name, for the message.

    Raises:
        ValueError: naming it.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{what} has a name that is not in UTF-8: {shown(name)}; rename it (names in Latin-1: "
            "`convmv -f latin1 -t utf8`)"
        ) from None


def write_any_name() -> None:
    """Make standard output and error escape names that they cannot encode, where they would fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
