"""Pages of objects on a node's disk, shared by its workers: the second epoch reads no object store.

An object is kept in pages of PAGE_BYTES, each a file named by a hash of (URL, object size, page number) that begins
with the checksum of what follows. Pages are written beside their place and renamed, so that a crash leaves none that is
half written; a page that does not match its checksum is dropped and read again. When the pages outgrow the limit, those
not used for longest go. A full disk switches the cache off for this process, with a warning: the run goes on.

Data larger than the limit: an epoch comes to every page once, in random order, so that whatever is thrown out for a new
page would have been wanted as soon. Then only a share of the pages that fits, the same one for every worker and epoch
(by the hash), is kept, and the rest is read as if there were no cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

log = logging.getLogger(__name__)

PAGE_BYTES = 1 << 20
_HEADER_BYTES = 4
_LOW_WATER = 0.9
"""Share of the limit down to which pages are removed once it is passed."""

Read = Callable[[str, int, int], bytes]


class CacheFolderError(ValueError):
    """A folder in which no cache can be kept; the message names the key."""


class PageCache:
    """Reads ranges through pages on a disk.

    Args:
        folder: on a local disk; made if missing. All workers of a node may share it.
        limit_bytes: that all pages may take together; passed by at most a sixteenth and one page a worker.
        expected_bytes: that will be asked for, 0 if unknown; where they are more than the limit, a share is kept.

    Raises:
        CacheFolderError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, limit_bytes: int, expected_bytes: int = 0) -> None:
        self._folder = Path(folder)
        self._limit_bytes = limit_bytes
        self._kept_share = min(1.0, _LOW_WATER * limit_bytes / expected_bytes) if expected_bytes else 1.0
        self._written_bytes = 0
        self._lock = threading.Lock()
        self._off = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".probe-{os.getpid()}-{threading.get_ident()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise CacheFolderError(f"data.cache_dir={folder} cannot be written: {error.strerror}") from None
        _shrink_once(self._folder, limit_bytes)

    def range(
        self, url: str, start: int, stop: int, object_bytes: int, read: Read, *, fresh: bool = False
    ) -> bytes | memoryview:
        """Bytes start..stop of an object.

        Args:
            read: `read(url, start, stop)` brings those that no page holds.
            fresh: look at no page, write them anew.
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
                parts.append(self._bring(url, at, end, object_bytes, read))
            at = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _path(self, url: str, number: int, object_bytes: int) -> Path | None:
        """Where a page is kept; None where it is not to be."""
        name = hashlib.sha256(f"{url}\0{object_bytes}\0{number}".encode()).hexdigest()
        return self._folder / name[:2] / name if int(name[-8:], 16) < self._kept_share * 2**32 else None

    def _end_of_missing(self, url: str, number: int, stop: int, object_bytes: int, fresh: bool) -> int:
        """Where the first page after `number` begins that is held, or `stop`: what is missing is read in one."""
        number += 1
        while number * PAGE_BYTES < stop:
            path = self._path(url, number, object_bytes)
            if not fresh and path is not None and path.exists():
                return number * PAGE_BYTES
            number += 1
        return stop

    def _bring(self, url: str, start: int, stop: int, object_bytes: int, read: Read) -> bytes:
        """Read a stretch and keep its pages; those at its ends are read whole where they are to be kept."""
        first, last = start // PAGE_BYTES, (stop - 1) // PAGE_BYTES
        paths = {number: self._path(url, number, object_bytes) for number in range(first, last + 1)}
        low = start if paths[first] is None else first * PAGE_BYTES
        high = stop if paths[last] is None else min((last + 1) * PAGE_BYTES, object_bytes)
        data = read(url, low, high)
        for number, path in paths.items():
            if path is not None and not self._off:
                begin = number * PAGE_BYTES - low
                self._keep(path, data[begin : begin + PAGE_BYTES])
        return data if (low, high) == (start, stop) else data[start - low : stop - low]

    def _keep(self, path: Path, data: bytes) -> None:
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
            log.warning("data.cache_dir=%s: %s; going on without the cache", self._folder, error.strerror)
            return
        with self._lock:
            self._written_bytes += len(data)
            due = self._written_bytes > self._limit_bytes // 16
            if due:
                self._written_bytes = 0
        if due:
            _shrink(self._folder, self._limit_bytes)


def _shrink(folder: Path, limit_bytes: int) -> None:
    """Remove the pages that were not used for longest until the rest fits; other workers may do so too."""
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
"""When a process begins, since the limit may have been lowered; not again for every stream and evaluation."""


def _held(path: Path) -> bytes | memoryview | None:
    """A page's bytes, or None where there is none that matches its checksum."""
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
