"""Reads of objects on S3 by obstore, which transfers bytes without holding Python's lock.

s3fs receives every chunk of a body in Python, so the threads that read and those that train wait for each other.
obstore transfers a range in compiled code and returns one buffer. s3fs remains the only place that finds settings: its
client resolves endpoint, region, addressing, certificates and credentials from fsspec's configuration, the environment,
the profile and the instance's role, and a `Bucket` passes these to obstore. Settings that obstore cannot express make
reads of that bucket use s3fs; the log says so once per bucket.

obstore reports timeouts, lost connections, cut bodies and 5xx answers only. Any other refusal is repeated with s3fs,
whose result counts: errors such as a missing object or a missing permission are those of s3fs, and a bucket that
answers s3fs but not obstore is read with s3fs from then on.

Requests are synchronous calls in threads of this module. A caller waits for the thread up to a time limit and then
leaves it; the read timeout of the client ends the request. obstore's asynchronous calls are not used: they call Python
from threads of their own, which may abort the process while Python shuts down.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fourds_dist.data.io.s3_settings import UnsupportedError, open_store
from fourds_dist.io import extras
from fourds_dist.io.error_text import one_line

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)

_DESCRIPTION = "\n\nDebug source:"
_HTTP_FAULT = re.compile(r"\bHttpError \{\s+kind: (\w+)")
_STATUS = re.compile(r"\bStatus \{\s+status: (\d{3})")
_BODY_FAULT = re.compile(r"\bkind: (Body|Decode)\b")
_TLS_FAULT = re.compile(r"\bkind: InvalidData\b")
_DETAIL = re.compile(r'(?:message|error): "([^"\n]*)"|^ +([A-Z]\w+),$', re.MULTILINE)
"""Fields of obstore's structured description of an error; its exception classes do not tell these faults apart."""
_BUSY = (408, 429)


class RefusedError(Exception):
    """obstore or the store refused a read, so that s3fs has to read.

    Args:
        is_final: whether later reads of the bucket would be refused as well.
    """

    def __init__(self, cause: str, *, is_final: bool) -> None:
        super().__init__(cause)
        self.is_final = is_final


class IncompleteReadError(OSError):
    """The connection ended within the body."""


class Bucket:
    """Reads objects of one bucket.

    Args:
        fs: the S3FileSystem whose settings and credentials are used.
        name: name of the bucket.
        silence_s: seconds without a byte after which a request ends.
    """

    def __init__(self, fs: Any, name: str, silence_s: float) -> None:
        self.fs = fs
        self._name = name
        self._silence_s = silence_s
        self._store: S3Store | None = None
        self._lock = threading.Lock()
        self.uses_obstore = True

    def start(self, key: str, start: int, stop: int | None) -> Future[bytes | memoryview]:
        """Start to read bytes start..stop of an object, or all bytes if `stop` is None; the buffer is not copied.

        The future raises:
            RefusedError: s3fs has to read.
            TimeoutError: the server was silent, or gave no connection.
            ConnectionError: the connection was refused or reset.
            IncompleteReadError: the connection ended within the body.
            OSError: the store is busy or failed (a 5xx).
        """
        return _in_a_thread(lambda: self._read(key, start, stop))

    def leave(self, cause: str) -> None:
        """Let later reads use s3fs."""
        with _buckets_lock:
            if self.uses_obstore:
                self.uses_obstore = False
                log.warning("s3://%s is read with s3fs, which is slower than obstore: %s", self._name, cause)

    def _read(self, key: str, start: int, stop: int | None) -> bytes | memoryview:
        import obstore

        try:
            store = self._opened()
            if stop is None:
                return obstore.get(store, key).bytes().to_bytes()
            return memoryview(obstore.get_range(store, key, start=start, end=stop))
        except UnsupportedError as error:
            raise RefusedError(str(error), is_final=True) from None
        # No such object, a key that obstore does not accept, or credentials that could not be refreshed.
        except (FileNotFoundError, ValueError, obstore.exceptions.UnauthenticatedError) as error:
            raise RefusedError(_cause(error), is_final=False) from None
        except obstore.exceptions.BaseError as error:
            raise _fault(error) from None

    def _opened(self) -> S3Store:
        with self._lock:
            if self._store is None:
                self._store = open_store(self.fs, self._name, self._silence_s)
            return self._store


def _fault(error: Exception) -> Exception:
    """Return the exception for an error of obstore."""
    cause, description = _cause(error), str(error).partition(_DESCRIPTION)[2]
    if found := _HTTP_FAULT.search(description):
        details = [message or name for message, name in _DETAIL.findall(description)]
        cause = f"{cause}: {details[-1]}" if details else cause
        if found[1] == "Connect" and _TLS_FAULT.search(description):
            return RefusedError(cause, is_final=True)  # a certificate that OpenSSL may accept
        if found[1] == "Timeout":
            return TimeoutError(cause)
        if found[1] == "Decode" or (found[1] == "Interrupted" and _BODY_FAULT.search(description)):
            return IncompleteReadError(cause)
        if found[1] in ("Connect", "Request", "Interrupted"):
            return ConnectionError(cause)
    elif (found := _STATUS.search(description)) and (int(found[1]) >= 500 or int(found[1]) in _BUSY):
        return OSError(cause)
    return RefusedError(cause, is_final=True)


def _cause(error: Exception) -> str:
    """Return the message of an error of obstore in one line, without its description."""
    return one_line(RuntimeError(str(error).partition(_DESCRIPTION)[0]))


_buckets: dict[str, Bucket] = {}
_buckets_lock = threading.Lock()


def bucket_of(fs: Any, path: str, silence_s: float) -> tuple[Bucket, str] | None:
    """Return the bucket of a path and the key in it; None if s3fs has to read.

    Args:
        fs: an S3FileSystem.
        silence_s: seconds without a byte after which a request ends.
    """
    name, key, version = fs.split_path(path)
    # obstore drops slashes at both ends of a key, and would read another object.
    if version is not None or key.strip("/") != key or not key or not is_installed():
        return None
    with _buckets_lock:
        bucket = _buckets.get(name)
        if bucket is None or bucket.fs is not fs:
            bucket = _buckets[name] = Bucket(fs, name, silence_s)
    return (bucket, key) if bucket.uses_obstore else None


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Return whether obstore can be imported; the log tells once that it cannot."""
    try:
        import obstore.store  # noqa: F401
    except ImportError as error:
        log.info("s3:// is read with s3fs, which is slower than obstore (%s); %s", error, extras.fix("s3"))
        return False
    return True


_Task = tuple[Future[Any], Callable[[], Any]]
_idle: list[queue.SimpleQueue[_Task]] = []
"""Task queues of the threads that wait for a task."""


def _in_a_thread(function: Callable[[], Any]) -> Future[Any]:
    """Call the function in a daemon thread that is idle, or in a new one: a request that hangs keeps no other waiting,
    nor the end of the process."""
    future: Future[Any] = Future()
    tasks: queue.SimpleQueue[_Task] | None = None
    with suppress(IndexError):
        tasks = _idle.pop()
    if tasks is None:
        tasks = queue.SimpleQueue()
        threading.Thread(target=_work, args=(tasks,), name="obstore", daemon=True).start()
    tasks.put((future, function))
    return future


def _work(tasks: queue.SimpleQueue[_Task]) -> None:
    while True:
        future, function = tasks.get()
        if future.set_running_or_notify_cancel():  # from now on a caller that leaves cannot cancel the future
            try:
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result  # otherwise the bytes stay in memory until the next task
        del future, function
        _idle.append(tasks)
