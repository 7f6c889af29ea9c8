"""Disk cache of objects' pages, shared by the workers of a node: the second epoch does not read the object store.

An object is cached in pages of PAGE_BYTES. Each page is a file, named by a hash of (URL, object size, page number),
which begins with the checksum of the page. A page is written to a temporary file and renamed, so that a crash leaves no
partial page. A page that does not match its checksum is deleted and read again. When the pages exceed the limit, the
least recently used pages are deleted. A full disk switches the cache off for this process, with a warning; the run
continues.

If the data are larger than the limit, only a share of the pages is cached, which the hash selects: the same pages for
every worker and epoch. Other pages are read without the cache. An epoch reads every page once, in random order, so
replacing one page by another would gain nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from fourds_dist.io.storage import is_url, plain

log = logging.getLogger(__name__)

PAGE_BYTES = 1 << 20
_HEADER_BYTES = 4
_LOW_WATER = 0.9
"""Share of the limit to which the cache shrinks once its pages exceed the limit."""

EXAMPLE_FOLDER = Path(tempfile.gettempdir(), "fourds-cache")
"""Folder that messages suggest as data.cache_dir."""

Read = Callable[[str, int, int], bytes | memoryview]


class CacheFolderError(ValueError):
    """The cache folder cannot be used; the message names the key."""


def cache_folder(folder: str | Path) -> Path:
    """Make data.cache_dir and return its path.

    Raises:
        CacheFolderError: the folder is in a store, or cannot be made or written.
    """
    folder = plain(str(folder))
    if is_url(folder):
        raise CacheFolderError(
            f"data.cache_dir={folder} is in a store; give a folder on a disk of each node, for example "
            f"data.cache_dir={EXAMPLE_FOLDER}"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, f".probe-{os.getpid()}-{threading.get_ident()}")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CacheFolderError(f"data.cache_dir={folder} cannot be written: {error.strerror}") from None
    return Path(folder)


class DiskCache:
    """Reads ranges of objects through a cache of pages.

    Args:
        folder: folder on a local disk, created if missing. All workers of a node may share it.
        limit_bytes: size limit of all pages together; each worker may exceed it by at most a sixteenth and one page.
        expected_bytes: size of the data that will be read, 0 if unknown; if it exceeds the limit, a share is cached.

    Raises:
        CacheFolderError: the folder is in a store, or cannot be made or written.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, expected_bytes: int = 0) -> None:
        self._folder = cache_folder(folder)
        self._limit_bytes = limit_bytes
        self._cached_share = min(1.0, _LOW_WATER * limit_bytes / expected_bytes) if expected_bytes else 1.0
        self._written_bytes = 0
        self._lock = threading.Lock()
        self._off = False
        _shrink_once(self._folder, limit_bytes)

    def range(
        self, url: str, start: int, stop: int, object_bytes: int, read: Read, *, fresh: bool = False
    ) -> bytes | memoryview:
        """Return bytes start..stop of an object.

        Args:
            read: `read(url, start, stop)` reads the bytes that no page holds.
            fresh: read no page, and write all pages again.
        """
        parts: list[bytes | memoryview] = []
        at = start
        while at < stop:
            number = at // PAGE_BYTES
            path = self._path(url, number, object_bytes)
            held = None if fresh or path is None else _held(path)
            if held is not None:
                end = min(stop, (number + 1) * PAGE_BYTES)
                parts.append(held[at - number * PAGE_BYTES : end - number * PAGE_BYTES])
            else:
                end = self._end_of_missing(url, number, stop, object_bytes, fresh)
                parts.append(self._read_and_store(url, at, end, object_bytes, read))
            at = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _path(self, url: str, number: int, object_bytes: int) -> Path | None:
        """Return the path of a page; None for a page that is not cached."""
        name = hashlib.sha256(f"{url}\0{object_bytes}\0{number}".encode()).hexdigest()
        return self._folder / name[:2] / name if int(name[-8:], 16) < self._cached_share * 2**32 else None

    def _end_of_missing(self, url: str, number: int, stop: int, object_bytes: int, fresh: bool) -> int:
        """Return the begin of the first cached page after `number`, or `stop`: missing pages are read in one range."""
        number += 1
        while number * PAGE_BYTES < stop:
            path = self._path(url, number, object_bytes)
            if not fresh and path is not None and path.exists():
                return number * PAGE_BYTES
            number += 1
        return stop

    def _read_and_store(
        self, url: str, start: int, stop: int, object_bytes: int, read: Read
    ) -> bytes | memoryview:
        """Return bytes start..stop and store their pages; the first and last page are read whole if they are cached."""
        first, last = start // PAGE_BYTES, (stop - 1) // PAGE_BYTES
        paths = {number: self._path(url, number, object_bytes) for number in range(first, last + 1)}
        low = start if paths[first] is None else first * PAGE_BYTES
        high = stop if paths[last] is None else min((last + 1) * PAGE_BYTES, object_bytes)
        data = read(url, low, high)
        for number, path in paths.items():
            if path is not None and not self._off:
                begin = number * PAGE_BYTES - low
                self._store(path, data[begin : begin + PAGE_BYTES])
        return data if (low, high) == (start, stop) else data[start - low : stop - low]

    def _store(self, path: Path, data: bytes | memoryview) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                file.write(zlib.crc32(data).to_bytes(_HEADER_BYTES, "little"))
                file.write(data)
            partial.replace(path)
        except OSError as error:
            self._off = True
            partial.unlink(missing_ok=True)
            log.warning("data.cache_dir=%s: %s; continuing without the cache", self._folder, error.strerror)
            return
        with self._lock:
            self._written_bytes += len(data)
            due = self._written_bytes > self._limit_bytes // 16
            if due:
                self._written_bytes = 0
        if due:
            _shrink(self._folder, self._limit_bytes)


def _shrink(folder: Path, limit_bytes: int) -> None:
    """Delete the least recently used pages until the others fit; other workers may delete pages at the same time."""
    found: list[tuple[float, int, Path]] = []
    for path in folder.glob("??/*"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found.append((state.st_mtime, state.st_size, path))
    excess = sum(size for _, size, _ in found) - limit_bytes
    if excess <= 0:
        return
    excess += int((1 - _LOW_WATER) * limit_bytes)
    for _, size, path in sorted(found):
        path.unlink(missing_ok=True)
        excess -= size
        if excess <= 0:
            return


_shrink_once = lru_cache(maxsize=None)(_shrink)
"""Shrinks the cache at its first use in a process, since the limit may be lower now; later streams skip it."""


def _held(path: Path) -> bytes | memoryview | None:
    """Return a page's bytes; None if the page is missing or does not match its checksum."""
    try:
        content = memoryview(path.read_bytes())
        os.utime(path)
    except OSError:
        return None
    data = content[_HEADER_BYTES:]
    if zlib.crc32(data).to_bytes(_HEADER_BYTES, "little") == content[:_HEADER_BYTES]:
        return data
    path.unlink(missing_ok=True)
    return None
