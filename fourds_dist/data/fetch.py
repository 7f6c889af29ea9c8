"""Bytes from a disk or an object store: ranged reads that outlast faults, each fault counted.

A read that fails, hangs, or brings too few bytes is tried again with exponentially growing, jittered pauses until
`patience_s` has passed since it began; what cannot get better (no such object, no permission, an object that is shorter
than it should be) is told at once. Filesystems are opened per process and used from threads only: s3fs does not survive
a fork.

Drivers have retries of their own, which are neither counted nor short: those of s3fs and botocore multiply to 125 tries
of 15 s each. For reading they are switched off, and every try here has its own time limit. What a user has set in
fsspec's configuration (`config_kwargs` of s3: timeouts, retries, proxies, addressing) goes before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import fsspec.config
from fsspec import AbstractFileSystem

from fourds_dist.storage import locate

if TYPE_CHECKING:
    from fourds_dist.data.cache import PageCache

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0

ANSWER_S = 30.0
"""Time that a try has, besides that for its bytes."""
SLOWEST_BYTES_PER_S = 256 << 10
"""A read that is slower than this is taken for one that hangs."""
LOST_S = 30.0
"""After this much more than its time, a try that cannot be broken off is given up, and with it the run."""

S3_CLIENT: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "max_pool_connections": 64,
}
"""Of botocore, where the user has set nothing else; its pool of ten connections would keep readers waiting."""


class DataError(RuntimeError):
    """The data cannot be read on; the message names the object, the cause and the remedy."""


class Fetcher:
    """Reads objects and ranges of objects.

    Args:
        patience_s: seconds after which a read that keeps failing is given up.
        cache: keeps pages of objects on the local disk, or None.

    `counts` holds the faults by kind, each of which a "retry" follows: "timeout", "connection" (refused, reset),
    "short_read" (also a connection cut in mid-object), "refusal" (a 5xx, or anything else); further "corrupt" (what did
    not match its checksum and came right when it was read again), and the "bytes" read.
    """

    def __init__(self, patience_s: float = 120.0, cache: PageCache | None = None) -> None:
        self._patience_s = patience_s
        self._cache = cache
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._under_way: dict[int, tuple[str, float]] = {}
        self.counts: Counter[str] = Counter()

    def range(
        self, url: str, start: int, stop: int, object_bytes: int, *, fresh: bool = False
    ) -> bytes | memoryview:
        """Bytes start..stop of an object that is `object_bytes` long.

        Args:
            fresh: read past the cache, and put right what it holds.

        Raises:
            DataError: the object is not there, may not be read, is shorter, or could not be read within patience_s.
        """
        if self._cache is None:
            return self._persist(url, start, stop)
        return self._cache.range(url, start, stop, object_bytes, self._persist, fresh=fresh)

    def object(self, url: str) -> bytes:
        """A whole object; raises like `range`."""
        return self._persist(url, 0, None)

    def stop(self) -> None:
        """Let the reads that are under way give up soon; those that begin later are not concerned."""
        stopped, self._stopped = self._stopped, threading.Event()
        stopped.set()

    def check(self) -> None:
        """Refuse to wait any longer for a try that no time limit could end, such as a read of a dead network disk.

        Raises:
            DataError: there is one.
        """
        now = time.monotonic()
        for what, limit in list(self._under_way.values()):
            if now > limit:
                raise DataError(
                    f"{what}: the read hangs, and its file system cannot break it off; is it mounted?"
                )

    def count(self, kind: str, amount: int = 1) -> None:
        """Add to `counts`."""
        with self._lock:
            self.counts[kind] += amount

    def _persist(self, url: str, start: int, stop: int | None) -> bytes:
        began, pause_s, stopped, num_short = time.monotonic(), FIRST_PAUSE_S, self._stopped, 0
        what = url if stop is None else f"{url}, bytes {start} to {stop}"
        while True:
            try:
                data = self._try(what, url, start, stop, stopped)
                if stop is None or len(data) == stop - start:
                    self.count("bytes", len(data))
                    return data
                kind, cause = "short_read", f"{len(data)} of {stop - start} bytes came"
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                raise DataError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
            except Exception as error:  # what a driver raises on a fault is not of one family
                kind = _kind(error)
                cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self.count(kind)
            num_short += kind == "short_read"
            if num_short == 3 and stop is not None:
                self._refuse_if_shorter(url, stop)
            if stopped.is_set():
                raise DataError(f"{what}: no longer wanted")
            if time.monotonic() - began > self._patience_s:
                raise DataError(
                    f"{what}: gave up after {self._patience_s:.0f} s (data.patience_s); the last try: {cause}"
                )
            self.count("retry")
            log.info("%s: %s; trying again", url, cause)
            stopped.wait(
                pause_s * random.uniform(0.5, 1.5)
            )  # not part of any result: jitter against the herd
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _try(self, what: str, url: str, start: int, stop: int | None, stopped: threading.Event) -> bytes:
        limit_s = ANSWER_S + (0 if stop is None else (stop - start) / SLOWEST_BYTES_PER_S)
        me = threading.get_ident()
        self._under_way[me] = (what, time.monotonic() + limit_s + LOST_S)
        try:
            return self._read(url, start, stop, limit_s, stopped)
        finally:
            del self._under_way[me]

    def _read(
        self, url: str, start: int, stop: int | None, limit_s: float, stopped: threading.Event
    ) -> bytes:
        fs, path = _located(url)
        if not getattr(fs, "async_impl", False):
            data = fs.cat_file(path, start=start, end=stop)
        else:
            data = _within(limit_s, fs, path, start, stop, stopped)
        assert isinstance(data, bytes)
        return data

    def _refuse_if_shorter(self, url: str, stop: int) -> None:
        fs, path = _located(url)
        try:
            found = fs.info(path)["size"]
        except Exception:  # the store's trouble, not the object's: the read goes on
            return
        if found is not None and found < stop:
            raise DataError(
                f"{url} has {found} bytes where its index speaks of byte {stop}: it was cut or replaced; restore it, "
                "or pack or index it again"
            )


def _within(
    limit_s: float, fs: Any, path: str, start: int, stop: int | None, stopped: threading.Event
) -> bytes:
    """`fs.cat_file`, broken off when its time is over or it is no longer wanted."""
    reading = asyncio.run_coroutine_threadsafe(fs._cat_file(path, start=start, end=stop), fs.loop)
    until = time.monotonic() + limit_s
    while True:
        try:
            return reading.result(timeout=max(0.0, min(1.0, until - time.monotonic())))
        except TimeoutError:
            if reading.done():
                raise
            if stopped.is_set() or time.monotonic() >= until:
                reading.cancel()
                raise TimeoutError(f"no answer within {limit_s:.0f} s") from None


def _kind(error: Exception) -> str:
    """What happened, of exceptions that belong to a dozen packages: only their names have something in common."""
    name = " ".join(kind.__name__ for kind in type(error).__mro__)
    if "Timeout" in name:
        return "timeout"
    if "Payload" in name or "IncompleteRead" in name or "ResponseStreaming" in name:
        return "short_read"
    return "connection" if "Connection" in name or "Disconnected" in name else "refusal"


def read_object(url: str) -> bytes:
    """A whole object, by a fetcher of usual patience."""
    return Fetcher().object(url)


@lru_cache(maxsize=4096)
def _located(url: str) -> tuple[AbstractFileSystem, str]:
    """File system and path, looked up once a URL."""
    if url.partition("://")[0] not in ("s3", "s3a"):
        return locate(url)
    from s3fs import S3FileSystem

    locate(url)  # tells what is missing
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    fs = S3FileSystem(config_kwargs=S3_CLIENT | given)
    fs.retries = 1  # of s3fs itself; this instance is only for reading, since its arguments are
    return fs, str(fs._strip_protocol(url))
