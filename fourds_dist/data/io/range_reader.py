"""Ranged reads from a disk or an object store, with retries; every fault is counted.

A read that fails, hangs or returns too few bytes is retried, with exponentially growing, jittered pauses, until
`retry_timeout_s` has passed since its start. Permanent faults (no such object, no permission, an object that is too
short) are raised at once. Filesystems are opened per process and used from threads only, since s3fs does not survive a
fork. Objects on S3 are read with obstore where it is installed (see object_store), else with s3fs.

Retries of the drivers are switched off for reads: the drivers do not count them, and those of s3fs and botocore
multiply to 125 attempts of 15 s each. Every attempt has its own time limit here. Settings in the user's fsspec
configuration (`config_kwargs` of s3: timeouts, retries, proxies, addressing) take precedence.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import fsspec.config
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fourds_dist.data.io import object_store
from fourds_dist.io.error_text import error_line
from fourds_dist.io.storage import locate

if TYPE_CHECKING:
    from fourds_dist.data.io.disk_cache import DiskCache

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0

ANSWER_S = 30.0
"""Time limit of an attempt, in addition to the time for its bytes."""
SLOWEST_BYTES_PER_S = 256 << 10
"""Lowest rate of a read; a slower read counts as hanging."""
LOST_S = 30.0
"""Time past its limit after which an attempt that cannot be cancelled ends the run."""

S3_CLIENT: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "max_pool_connections": 64,
}
"""Default options of botocore for reads; its own pool of ten connections would be too small for the read threads."""


class DataError(RuntimeError):
    """Data cannot be read; the message names the object, the cause and the remedy."""


class RangeFetcher:
    """Reads objects and ranges of objects.

    Args:
        retry_timeout_s: seconds for which a failing read is retried.
        cache: cache of objects' pages on the local disk, or None.

    `counts` counts faults by kind: "timeout", "connection" (refused, reset), "short_read" (also a connection that ends
    in mid-object), "refusal" (a 5xx, or anything else). It also counts each "retry", "corrupt" (data that matched their
    checksum only when read again) and the "bytes" read.
    """

    def __init__(self, retry_timeout_s: float = 120.0, cache: DiskCache | None = None) -> None:
        self._retry_timeout_s = retry_timeout_s
        self._cache = cache
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._active_reads: dict[int, tuple[str, float]] = {}
        self.counts: Counter[str] = Counter()

    def range(
        self, url: str, start: int, stop: int, object_bytes: int, *, fresh: bool = False
    ) -> bytes | memoryview:
        """Return bytes start..stop of an object of `object_bytes` bytes.

        Args:
            fresh: bypass the cache and overwrite its pages.

        Raises:
            DataError: the object is missing, may not be read, is shorter, or could not be read within retry_timeout_s.
        """
        if self._cache is None:
            return self._read_with_retries(url, start, stop)
        return self._cache.range(url, start, stop, object_bytes, self._read_with_retries, fresh=fresh)

    def object(self, url: str) -> bytes:
        """Return a whole object; raise like `range`."""
        return bytes(self._read_with_retries(url, 0, None))

    def stop(self) -> None:
        """Make active reads give up soon; later reads are not affected."""
        stopped, self._stopped = self._stopped, threading.Event()
        stopped.set()

    def check(self) -> None:
        """Refuse to wait longer for an attempt that cannot be cancelled, such as a read from a dead network disk.

        Raises:
            DataError: an attempt is past its time limit by more than LOST_S.
        """
        now = time.monotonic()
        for what, limit in list(self._active_reads.values()):
            if now > limit:
                raise DataError(
                    f"{what}: the read hangs, and its file system cannot cancel it; check that the disk is mounted"
                )

    def count(self, kind: str, amount: int = 1) -> None:
        """Add to `counts`."""
        with self._lock:
            self.counts[kind] += amount

    def _read_with_retries(self, url: str, start: int, stop: int | None) -> bytes | memoryview:
        began, pause_s, stopped, num_short = time.monotonic(), FIRST_PAUSE_S, self._stopped, 0
        what = url if stop is None else f"{url}, bytes {start} to {stop}"
        while True:
            try:
                data = self._try(what, url, start, stop, stopped)
                if stop is None or len(data) == stop - start:
                    self.count("bytes", len(data))
                    return data
                kind, cause = "short_read", f"the read returned {len(data)} of {stop - start} bytes"
            except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
                raise DataError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
            except Exception as error:  # drivers raise exceptions of many families
                kind = _kind(error)
                cause = error_line(error, 200)
            self.count(kind)
            num_short += kind == "short_read"
            if num_short == 3 and stop is not None:
                self._refuse_if_shorter(url, stop)
            if stopped.is_set():
                raise DataError(f"{what}: the read was cancelled")
            if time.monotonic() - began > self._retry_timeout_s:
                raise DataError(
                    f"{what}: gave up after {self._retry_timeout_s:.0f} s (data.retry_timeout_s); last error: {cause}"
                )
            self.count("retry")
            log.info("%s: %s; retrying", url, cause)
            # Jitter, so that readers do not retry at once; no result depends on it.
            stopped.wait(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _try(
        self, what: str, url: str, start: int, stop: int | None, stopped: threading.Event
    ) -> bytes | memoryview:
        limit_s = ANSWER_S + (0 if stop is None else (stop - start) / SLOWEST_BYTES_PER_S)
        thread = threading.get_ident()
        self._active_reads[thread] = (what, time.monotonic() + limit_s + LOST_S)
        try:
            return self._read(url, start, stop, limit_s, stopped)
        finally:
            del self._active_reads[thread]

    def _read(
        self, url: str, start: int, stop: int | None, limit_s: float, stopped: threading.Event
    ) -> bytes | memoryview:
        fs, path = _located(url)
        if type(fs) is LocalFileSystem:
            return _read_file(path, start, stop)
        if not getattr(fs, "async_impl", False):
            data = fs.cat_file(path, start=start, end=stop)
            assert isinstance(data, bytes)
            return data
        found = object_store.bucket_of(fs, path, ANSWER_S) if _is_s3(url) else None
        if found is None:
            return _with_fsspec(fs, path, start, stop, limit_s, stopped)
        bucket, key = found
        try:
            return _within(limit_s, bucket.start(key, start, stop), stopped)
        except object_store.RefusedError as refusal:
            data = _with_fsspec(fs, path, start, stop, limit_s, stopped)
            if refusal.is_final:
                bucket.leave(str(refusal))
            return data

    def _refuse_if_shorter(self, url: str, stop: int) -> None:
        fs, path = _located(url)
        try:
            found = fs.info(path)["size"]
        except Exception:  # a fault of the store, not of the object: the read is retried
            return
        if found is not None and found < stop:
            raise DataError(
                f"{url} has {found} bytes, but its index names byte {stop}: the file was truncated or replaced; "
                "restore it, or pack or index it again"
            )


def _read_file(path: str, start: int, stop: int | None) -> bytes:
    """Read a local file. fsspec takes several times as long, with Python's lock held."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, (os.fstat(file).st_size if stop is None else stop) - start, start)
    finally:
        os.close(file)


def _with_fsspec(
    fs: Any, path: str, start: int, stop: int | None, limit_s: float, stopped: threading.Event
) -> bytes:
    reading = asyncio.run_coroutine_threadsafe(fs._cat_file(path, start=start, end=stop), fs.loop)
    return _within(limit_s, reading, stopped)


def _within(limit_s: float, reading: Future[Any], stopped: threading.Event) -> Any:
    """Return the result of a read, cancelled at its time limit or when `stopped` is set."""
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
    """Return the kind of a fault by the exception's names: the exceptions of many packages share nothing else."""
    name = " ".join(kind.__name__ for kind in type(error).__mro__)
    if "Timeout" in name:
        return "timeout"
    if "Payload" in name or "IncompleteRead" in name or "ResponseStreaming" in name:
        return "short_read"
    return "connection" if "Connection" in name or "Disconnected" in name else "refusal"


def read_object(url: str) -> bytes:
    """Return a whole object, read with the default retries."""
    return RangeFetcher().object(url)


@lru_cache(maxsize=4096)
def _located(url: str) -> tuple[AbstractFileSystem, str]:
    """Return (file system, path), looked up once per URL."""
    if not _is_s3(url):
        return locate(url)
    from s3fs import S3FileSystem

    locate(url)  # raises an error if the driver is missing
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    fs = S3FileSystem(config_kwargs=S3_CLIENT | given)
    fs.retries = 1  # retries of s3fs; no writer shares this instance, since its arguments are those of reads
    return fs, str(fs._strip_protocol(url))


def _is_s3(url: str) -> bool:
    return url.partition("://")[0] in ("s3", "s3a")
