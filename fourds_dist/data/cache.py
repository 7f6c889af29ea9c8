"""Pages of objects on a node's disk, shared by its workers: the second epoch reads no object store.

An object is kept in pages of PAGE_BYTES, each a file named by a hash of (URL, object size, page number) that begins
with the checksum of what follows. Pages are written beside their place and renamed, so that a crash leaves none that is
half written; a page that does not match its checksum is dropped and read again. When the pages outgrow the limit, those
not used for longest go. A full disk switches the cache off for this process, with a warning: the run goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

PAGE_BYTES = 4 << 20
_HEADER_BYTES = 4
_LOW_WATER = 0.9
"""Share of the limit down to which pages are removed once it is passed."""


class PageCache:
    """Reads ranges through pages on a disk.

    Args:
        folder: on a local disk; made if missing. All workers of a node may share it.
        limit_bytes: that all pages may take together; passed by at most a sixteenth and one page a worker.

    Raises:
        ValueError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, limit_bytes: int) -> None:
        self._folder = Path(folder)
        self._limit_bytes = limit_bytes
        self._written_bytes = 0
        self._lock = threading.Lock()
        self._off = False
        self.num_hits = self.num_misses = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise ValueError(f"data.cache_dir={folder} cannot be written: {error.strerror}") from None
        self._shrink()

    def range(
        self, url: str, start: int, stop: int, object_bytes: int, read: Callable[[str, int, int], bytes]
    ) -> bytes:
        """Bytes start..stop of an object from its pages; `read(url, start, stop)` brings those that are missing."""
        first, last = start // PAGE_BYTES, (stop - 1) // PAGE_BYTES
        pages = [self._page(url, number, object_bytes, read) for number in range(first, last + 1)]
        low = start - first * PAGE_BYTES
        return b"".join(pages)[low : low + stop - start]

    def _page(
        self, url: str, number: int, object_bytes: int, read: Callable[[str, int, int], bytes]
    ) -> bytes:
        name = hashlib.sha256(f"{url}\0{object_bytes}\0{number}".encode()).hexdigest()
        path = self._folder / name[:2] / name
        held = _held(path)
        if held is not None:
            self.num_hits += 1
            return held
        self.num_misses += 1
        start = number * PAGE_BYTES
        data = read(url, start, min(start + PAGE_BYTES, object_bytes))
        if not self._off:
            self._keep(path, data)
        return data

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
            self._shrink()

    def _shrink(self) -> None:
        """Remove the pages that were not used for longest until the rest fits; other workers may do so too."""
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("??/*"):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            found.append((state.st_mtime, state.st_size, path))
        excess = sum(size for _, size, _ in found) - self._limit_bytes
        if excess <= 0:
            return
        excess += int((1 - _LOW_WATER) * self._limit_bytes)
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            excess -= size
            if excess <= 0:
                return


def _held(path: Path) -> bytes | None:
    """A page's bytes, or None where there is none that matches its checksum."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    data = content[_HEADER_BYTES:]
    if zlib.crc32(data).to_bytes(_HEADER_BYTES, "little") == content[:_HEADER_BYTES]:
        return data
    path.unlink(missing_ok=True)
    return None
