"""Which of the objects that a data set names are there, and how large: without reading them, and fast for many.

A folder of a disk is one pass over its entries. An object store gives a thousand names at a time, each page a request
after the last: of many names, stretches that begin alike are listed side by side. What a listing does not show (a store
that lets no one list, plain HTTP, a name just written) is asked for by itself before it counts as missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fourds_dist.storage import explained, is_local, locate

REQUESTS = 16
"""To a store at a time."""
MANY = 4000
"""Names from which on a listing is cut in stretches."""
LISTS_BY_PREFIX = ("s3", "s3a", "gs", "gcs")

Sizes = dict[str, int | None]


def sizes(folder: str, names: Collection[str]) -> Sizes:
    """Size of each of the names that is in a folder; None where the store does not tell.

    Raises:
        ValueError: the store refuses or cannot be reached.
    """
    fs, path = locate(folder)
    with explained(folder):
        if is_local(fs):
            return _local(path, set(names))
        fs.invalidate_cache()
        found = _listed(fs, path, names)
        fs.invalidate_cache()  # a listing of many names is large, and ages
        missing = [name for name in names if name not in found]
        if missing:
            found |= _asked_for(fs, path, missing)
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
            entries = _side_by_side(
                prefixes(names), lambda prefix: fs.find(path, prefix=prefix, detail=True).values()
            )
        else:
            entries = fs.ls(path, detail=True)
    except (FileNotFoundError, PermissionError, NotImplementedError):
        return {}
    wanted = set(names)
    told = ((entry["name"].rstrip("/"), entry.get("size")) for entry in entries)
    return {
        name.rpartition("/")[2]: size
        for name, size in told
        if name.rpartition("/")[2] in wanted
        and name.endswith(f"{path.rstrip('/')}/{name.rpartition('/')[2]}")
    }


def prefixes(names: Collection[str]) -> list[str]:
    """Beginnings that every name has exactly one of: as many as there are requests to be made at a time, if can be."""
    longest = max(map(len, names))
    for length in range(1, longest + 1):
        found = sorted({name[:length] for name in names})
        if len(found) >= REQUESTS:
            return found if len(found) <= len(names) // 200 else [""]
    return [""]


def _asked_for(fs: Any, path: str, names: list[str]) -> Sizes:
    def ask(name: str) -> list[tuple[str, int | None]]:
        try:
            return [(name, fs.info(f"{path.rstrip('/')}/{name}").get("size"))]
        except FileNotFoundError:
            return []

    # Where none of a few is there, the others are not asked for: the run ends at the first that is missing. The few
    # are asked for twice, since a store that has just been written to may not know them yet.
    few, others = names[:REQUESTS], names[REQUESTS:]
    found = dict(_side_by_side(few, ask))
    found |= dict(_side_by_side([name for name in few if name not in found], ask))
    return found | dict(_side_by_side(others, ask)) if found else found


def _side_by_side(names: Collection[str], ask: Callable[[str], Any]) -> list[Any]:
    with ThreadPoolExecutor(REQUESTS) as pool:
        return [item for items in pool.map(ask, names) for item in items]


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
