"""URLs that end in a pattern of shard names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

import braceexpand

from fourds_dist.io.storage import locate, translate_storage_errors

MOST_NAMES = 1_000_000
"""Names that the braces of a pattern may expand to."""
MOST_GLOBS = 1000
"""Globs that the braces may expand to; each glob is matched against every name."""

_PATTERN = re.compile(r"[{*?\[]")
_GLOB = re.compile(r"[*?\[]")
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")
_QUERY = re.compile(r"(https?://[^?]*)\?([\w.~%-]+)=")
_MOST_DIGITS = 18
_DEEPEST = 50
"""Largest depth of nested braces."""


def split_pattern(url: str) -> tuple[str, str | None]:
    """Split a URL such as s3://b/photos/train-{000..099}.tar into folder and pattern; the pattern may be None.

    Names of existing folders are not patterns: `photos [2024]`, `{a}` and `x.tar` may be folders.

    Raises:
        ValueError: the URL has a query, or the store refuses access or cannot be reached.
    """
    refuse_query(url)
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


def refuse_query(url: str) -> None:
    """Refuse an address of data with a query, such as a signed link; the message does not show the query's value.

    Raises:
        ValueError: the URL has a query.
    """
    if query := _QUERY.match(url):
        raise ValueError(
            f"{query[1]}: an address with a query (?{query[2]}=...) cannot be read: shards are read again in every "
            "epoch, and such links expire; give the address without the query, or copy the data to a disk or a bucket"
        )


def expanded(pattern: str, where: str) -> list[str]:
    """Return the names and globs that the braces of a pattern expand to, without duplicates.

    Args:
        where: the pattern as given, for messages.

    Raises:
        ValueError: unbalanced braces, or more than MOST_NAMES names or MOST_GLOBS globs.
    """
    number = _number_of_names(pattern)
    if number is None:
        raise ValueError(
            f"{where}: its braces do not match or are more than {_DEEPEST} deep; give a range such as "
            "{000..099}"
        )
    most, what = (MOST_GLOBS, "globs") if _GLOB.search(pattern) else (MOST_NAMES, "names")
    if number > most:
        shown = f"{number}" if number < 10**_MOST_DIGITS else f"over 10^{_MOST_DIGITS}"
        instead = "a smaller range" if what == "globs" else "a smaller range, or a glob such as train-*.tar"
        raise ValueError(f"{where} stands for {shown} {what}, and at most {most} are allowed; give {instead}")
    return list(dict.fromkeys(braceexpand.braceexpand(pattern)))


def matching(names: Iterable[str], pattern: str) -> set[str]:
    """Return the names that match a brace range or glob; only the name equal to the pattern, if there is one.

    Raises:
        ValueError: too many names; see `expanded`.
    """
    names = list(names)
    if pattern in names:
        return {pattern}
    is_range = _number_of_names(pattern) is not None  # unbalanced braces are not a range
    options = set(expanded(pattern, pattern)) if is_range else {pattern}
    globs = [option for option in options if _PATTERN.search(option)]
    return {n for n in names if n in options or any(fnmatch.fnmatchcase(n, glob) for glob in globs)}


def _number_of_names(pattern: str) -> int | None:
    """Return how many names `braceexpand` would make, without making them; None for unbalanced braces."""
    # Per open brace: start, number of names in finished parts, number of names in the current part, comma seen.
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
    """Return the length of a range such as `000..099` or `a..z`, with or without step; None for other text."""
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
    with translate_storage_errors(url):
        return fs.isdir(path)
