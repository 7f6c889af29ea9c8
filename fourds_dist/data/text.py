"""The one Unicode form of names: of classes, files and samples.

macOS and archives made there spell ö as o and a combining mark (NFD), everybody else as one character (NFC). Both look
the same and are unequal. Each name that enters from outside (a folder, a list, a class list, a manifest, a label in a
tar) is composed once, where it enters.
"""

from __future__ import annotations

import unicodedata


def composed(text: str) -> str:
    """The text in the form NFC, in which equal names are equal."""
    return unicodedata.normalize("NFC", text)
