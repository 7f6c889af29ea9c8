"""URLs that end in a pattern of shards."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

import braceexpand

_PATTERN = re.compile(r"[{*?\[]")


def split_pattern(url: str) -> tuple[str, str | None]:
    """(folder, pattern of shard names) of a URL such as s3://b/photos/train-{000..099}.tar; None without a pattern."""
    match = _PATTERN.search(url)
    if match is None and not url.endswith(".tar"):
        return url.rstrip("/"), None
    folder, _, _ = url[: match.start() if match else len(url)].rpartition("/")
    return folder or ".", url[len(folder) + 1 if folder else 0 :]


def matching(names: Iterable[str], pattern: str) -> set[str]:
    """The names that a brace range lists or a glob fits."""
    options = set(braceexpand.braceexpand(pattern))
    globs = [option for option in options if _PATTERN.search(option)]
    return {n for n in names if n in options or any(fnmatch.fnmatchcase(n, glob) for glob in globs)}
