"""Bytes from a disk or an object store: ranged reads that outlast faults, each fault counted.

A read that fails, or brings too few bytes, is tried again with exponentially growing, jittered pauses until
`patience_s` has passed since it began; what cannot get better (no such object, no permission) is not. Filesystems are
opened per process and used from threads only: s3fs does not survive a fork.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from functools import lru_cache
from typing import Any

from fourds_dist.storage import locate

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


class DataError(RuntimeError):
    """The data cannot be read on; the message names the object, the cause and the remedy."""


class Fetcher:
    """Reads objects and ranges of objects.

    Args:
        patience_s: seconds after which a read that keeps failing is given up.
        cache: keeps pages of objects on the local disk, or None.

    `counts` holds the faults by kind and the bytes read: "retry", "short_read", "bytes".
    """

    def __init__(self, patience_s: float = 120.0, cache: Any = None) -> None:
        self._patience_s = patience_s
        self._cache = cache
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def range(self, url: str, start: int, stop: int, object_bytes: int) -> bytes:
        """Bytes start..stop of an object that is `object_bytes` long.

        Raises:
            DataError: the object is not there, may not be read, is shorter, or could not be read within patience_s.
        """
        if self._cache is None:
            return self._persist(url, start, stop)
        return self._cache.range(url, start, stop, object_bytes, self._persist)

    def object(self, url: str) -> bytes:
        """A whole object; raises like `range`."""
        return self._persist(url, None, None)

    def _persist(self, url: str, start: int | None, stop: int | None) -> bytes:
        began, pause_s = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                data = self._read(url, start, stop)
                if start is None or stop is None or len(data) == stop - start:
                    self._count("bytes", len(data))
                    return data
                self._count("short_read")
                cause = f"{len(data)} of {stop - start} bytes came"
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                raise DataError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
            except Exception as error:  # what a driver raises on a fault is not of one family
                cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if time.monotonic() - began > self._patience_s:
                where = "" if start is None else f", bytes {start} to {stop}"
                raise DataError(
                    f"{url}{where}: gave up after {self._patience_s:.0f} s (data.patience_s); the last try: {cause}"
                )
            self._count("retry")
            log.info("%s: %s; trying again", url, cause)
            time.sleep(pause_s * random.uniform(0.5, 1.5))  # not part of any result: jitter against the herd
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _read(self, url: str, start: int | None, stop: int | None) -> bytes:
        fs, path = _located(url)
        data = fs.cat_file(path, start=start, end=stop)
        assert isinstance(data, bytes)
        return data

    def _count(self, kind: str, amount: int = 1) -> None:
        with self._lock:
            self.counts[kind] += amount


def read_object(url: str) -> bytes:
    """A whole object, by a fetcher of usual patience."""
    return Fetcher().object(url)


_located = lru_cache(maxsize=65536)(locate)
"""File systems are looked up once a URL."""
