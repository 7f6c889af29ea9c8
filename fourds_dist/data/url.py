"""URLs that end in a pattern of shards."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

import braceexpand

from fourds_dist.storage import explained, locate

MOST_NAMES = 1_000_000
"""That the braces of a pattern may stand for."""
MOST_GLOBS = 1000
"""That they may stand for where the pattern holds *, ? or [, each of which is held against every name."""

_PATTERN = re.compile(r"[{*?\[]")
_GLOB = re.compile(r"[*?\[]")
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")
_MOST_DIGITS = 18
_DEEPEST = 50
"""Braces in braces."""


def split_pattern(url: str) -> tuple[str, str | None]:
    """(folder, pattern of shard names) of a URL such as s3://b/photos/train-{000..099}.tar; None without a pattern.

    A folder that is there is taken as it is named: `photos [2024]`, `{a}` and `x.tar` may be folders.

    Raises:
        ValueError: the store refuses or cannot be reached.
    """
    url = url.rstrip("/")
    parts = url.split("/")
    for number, part in enumerate(parts):
        if not _PATTERN.search(part) and not (number == len(parts) - 1 and part.endswith(".tar")):
            continue
        if not _is_folder("/".join(parts[: number + 1])):
            folder = "/".join(parts[:number])
            if number and not folder:  # /x.tar
                folder = "/"
            return folder or ".", "/".join(parts[number:])
    return url, None


def expanded(pattern: str, where: str) -> list[str]:
    """The names and globs that the braces of a pattern stand for, each once.

    Args:
        where: the pattern as it was given, for messages.

    Raises:
        ValueError: braces that do not match, or that stand for more than MOST_NAMES names or MOST_GLOBS globs.
    """
    number = _number_of_names(pattern)
    if number is None:
        raise ValueError(
            f"{where}: its braces do not match or lie more than {_DEEPEST} deep; give a range such as "
            "{000..099}"
        )
    most, what = (MOST_GLOBS, "globs") if _GLOB.search(pattern) else (MOST_NAMES, "names")
    if number > most:
        shown = f"{number}" if number < 10**_MOST_DIGITS else f"over 10^{_MOST_DIGITS}"
        instead = "a smaller range" if what == "globs" else "a smaller range, or a glob such as train-*.tar"
        raise ValueError(f"{where} stands for {shown} {what}, and at most {most} are allowed; give {instead}")
    return list(dict.fromkeys(braceexpand.braceexpand(pattern)))


def matching(names: Iterable[str], pattern: str) -> set[str]:
    """The names that a brace range lists or a glob fits; the name that is the pattern itself, where there is one.

    Raises:
        ValueError: braces that stand for too many names; see `expanded`.
    """
    names = list(names)
    if pattern in names:
        return {pattern}
    is_range = _number_of_names(pattern) is not None  # braces that do not close are no range
    options = set(expanded(pattern, pattern)) if is_range else {pattern}
    globs = [option for option in options if _PATTERN.search(option)]
    return {n for n in names if n in options or any(fnmatch.fnmatchcase(n, glob) for glob in globs)}


def _number_of_names(pattern: str) -> int | None:
    """How many names `braceexpand` makes of a pattern, without making them; None where the braces do not match."""
    # Of each brace that is open: where it begins, the names of its parts so far, those of the part that goes on, and
    # whether there was a comma.
    opened: list[tuple[int, int, int, bool]] = []
    at, begin, finished, names, has_comma = 0, 0, 0, 1, False
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 1
        elif letter == "{":
            opened.append((begin, finished, names, has_comma))
            begin, finished, names, has_comma = at + 1, 0, 1, False
            if len(opened) > _DEEPEST:
                return None
        elif letter == "," and opened:
            finished, names, has_comma = finished + names, 1, True
        elif letter == "}":
            if not opened:
                return None
            of_range = _length_of_range(pattern[begin:at])
            within = of_range or (finished + names if has_comma else names)
            begin, finished, names, has_comma = opened.pop()
            names *= within
        at += 1
    return None if opened else names


def _length_of_range(text: str) -> int | None:
    """Of `000..099` and `a..z`, also with a step; None where the text between braces is no range."""
    if match := _NUMBERS.fullmatch(text):
        if any(len(digits) > _MOST_DIGITS for digits in match.groups("")):
            return 10**_MOST_DIGITS
        first, last = int(match[1]), int(match[2])
    elif match := _LETTERS.fullmatch(text):
        first, last = (braceexpand.alphabet.index(letter) for letter in match.groups()[:2])
    else:
        return None
    step = int(match[3] or 1) if len(match[3] or "") <= _MOST_DIGITS else 10**_MOST_DIGITS
    return abs(last - first) // (step or 1) + 1


def _is_folder(url: str) -> bool:
    if url.endswith(":") or not url.strip("/"):
        return False
    fs, path = locate(url)
    with explained(url):
        return fs.isdir(path)
