"""URLs that end in a pattern of shards."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

import braceexpand

from fourds_dist.storage import explained, locate

_PATTERN = re.compile(r"[{*?\[]")


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


def matching(names: Iterable[str], pattern: str) -> set[str]:
    """The names that a brace range lists or a glob fits; the name that is the pattern itself, where there is one."""
    names = list(names)
    if pattern in names:
        return {pattern}
    try:
        options = set(braceexpand.braceexpand(pattern))
    except ValueError:  # braces that do not close are no range
        options = {pattern}
    globs = [option for option in options if _PATTERN.search(option)]
    return {n for n in names if n in options or any(fnmatch.fnmatchcase(n, glob) for glob in globs)}


def _is_folder(url: str) -> bool:
    if url.endswith(":") or not url.strip("/"):
        return False
    fs, path = locate(url)
    with explained(url):
        return fs.isdir(path)
