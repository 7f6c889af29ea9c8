"""Which files of a data set exist, and their sizes, with few requests for many files.

A folder on a disk needs one pass over its entries. An object store lists a thousand names per request, one page after
another; many names are therefore listed by prefix, several prefixes in parallel. Names that a listing lacks (listing
denied, plain HTTP, a file just written) are requested one by one before they count as missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fourds_dist.io.storage import is_local, locate, translate_storage_errors

REQUESTS = 16
"""Parallel requests to a store."""
MANY = 4000
"""Number of names above which a listing is split by prefix."""
LISTS_BY_PREFIX = ("s3", "s3a", "gs", "gcs")

Sizes = dict[str, int | None]


def sizes(folder: str, names: Collection[str]) -> Sizes:
    """Return name -> size in bytes of the names that exist in a folder; None where the store reports no size.

    Raises:
        ValueError: the store refuses access or cannot be reached.
    """
    fs, path = locate(folder)
    with translate_storage_errors(folder):
        if is_local(fs):
            return _local(path, set(names))
        fs.invalidate_cache()
        found = _listed(fs, path, names)
        fs.invalidate_cache()  # a cached listing is large and becomes stale
        missing = [name for name in names if name not in found]
        if missing:
            found |= _request_each(fs, path, missing)
    return found


def _local(path: str, names: set[str]) -> Sizes:
    try:
        with os.scandir(path) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.name in names}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _listed(fs: Any, path: str, names: Collection[str]) -> Sizes:
    by_prefix = len(names) > MANY and any(protocol in LISTS_BY_PREFIX for protocol in _protocols(fs))
    try:
        if by_prefix:
            entries = _in_parallel(
                prefixes(names), lambda prefix: fs.find(path, prefix=prefix, detail=True).values()
            )
        else:
            entries = fs.ls(path, detail=True)
    except (FileNotFoundError, PermissionError, NotImplementedError):
        return {}
    wanted = set(names)
    listed = ((entry["name"].rstrip("/"), entry.get("size")) for entry in entries)
    return {
        name.rpartition("/")[2]: size
        for name, size in listed
        if name.rpartition("/")[2] in wanted
        and name.endswith(f"{path.rstrip('/')}/{name.rpartition('/')[2]}")
    }


def prefixes(names: Collection[str]) -> list[str]:
    """Return prefixes such that every name has exactly one: at least REQUESTS prefixes, or [""] for too few names."""
    longest = max(map(len, names))
    for length in range(1, longest + 1):
        found = sorted({name[:length] for name in names})
        if len(found) >= REQUESTS:
            return found if len(found) <= len(names) // 200 else [""]
    return [""]


def _request_each(fs: Any, path: str, names: list[str]) -> Sizes:
    def ask(name: str) -> list[tuple[str, int | None]]:
        try:
            return [(name, fs.info(f"{path.rstrip('/')}/{name}").get("size"))]
        except FileNotFoundError:
            return []

    # If none of the first few names exists, the others are not requested, since the run fails at the first missing one.
    # The first few are requested twice, since a store may show new files late.
    first, others = names[:REQUESTS], names[REQUESTS:]
    found = dict(_in_parallel(first, ask))
    found |= dict(_in_parallel([name for name in first if name not in found], ask))
    return found | dict(_in_parallel(others, ask)) if found else found


def _in_parallel(names: Collection[str], ask: Callable[[str], Any]) -> list[Any]:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return [item for items in pool.map(ask, names) for item in items]


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
