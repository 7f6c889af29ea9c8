"""The lease of a folder: a small file that names the driver that holds the folder, so that one driver works at a time.

    lease.json   {"id", "host", "pid", "began", "space", "since", "renewed"}      see `processes.identity`

The holder renews the file every RENEW_S seconds and removes the file at the end, also after errors and Ctrl-C. A second
driver is refused while the holder is alive, or waits for the holder's end. A holder on the same host is alive while its
process runs. A holder on another host is alive if it renews the file within STALE_S seconds, by the clock of the driver
that waits.

On a disk, the file system decides between two drivers that start at once: only one can create the file, and a lock on
the folder lets only one remove the lease of a dead driver. In a store, and on a disk without locks, the driver that
wrote last holds the folder; each driver reads the file again after SETTLE_S seconds, before it starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import is_local, join, locate, plain, translate_storage_errors, write_bytes
from fourds_dist.io.terminal import say
from fourds_dist.processes.identity import identity_text, is_of_this_system, is_running, own_identity
from fourds_dist.processes.interrupt import interrupt_main_thread
from fourds_dist.runs.layout import RunFile

RENEW_S = 10.0
"""Seconds between two renewals."""
STALE_S = 60.0
"""Seconds without a renewal after which a holder on another host counts as dead."""
ANCIENT_S = 3600.0
"""Age at which a lease counts as dead at once, both by its `renewed` and by the file's time: one clock may be wrong."""
SETTLE_S = 1.5
"""Seconds after which a store's file is read again, to find the last writer."""
POLL_S = 1.0

_held_ids: dict[str, str] = {}
"""Folder -> id of the lease that this process holds."""
_lock = threading.Lock()


class HeldError(RuntimeError):
    """Another driver holds the folder; the message names the driver."""


class Lease:
    """The lease of a folder, held by this process.

    Args:
        url: the folder.
    """

    def __init__(self, url: str) -> None:
        self.url = plain(url)
        self.taken_by: str | None = None
        """The driver that has taken over the folder because this process did not renew the lease in time."""
        self._content = {"id": uuid.uuid4().hex, **own_identity(), "renewed": time.time()}
        self._made_folders: list[Path] = []
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @property
    def id(self) -> str:
        """Unique id of the lease."""
        return str(self._content["id"])

    def acquire(self, wait_s: float) -> None:
        """Take the lease; see `held`."""
        with _lock:
            if self.url in _held_ids:
                raise HeldError(f"{self.url} is in use by this very process; wait until that run is done")
            _held_ids[self.url] = self.id
        try:
            until_s = time.monotonic() + wait_s
            while (found := self._try()) is not None:
                if time.monotonic() >= until_s:
                    raise HeldError(_held_message(self.url, found))
                time.sleep(POLL_S)
        except BaseException:
            _held_ids.pop(self.url, None)
            self._remove_made()
            raise
        self._thread.start()

    def release(self) -> None:
        """Remove the lease, unless another driver has written it."""
        self._released.set()
        self._thread.join(timeout=RENEW_S)
        try:
            _remove(self.url, self.id)
        except Exception:  # any error of a store's driver; the lease expires
            pass
        finally:
            _held_ids.pop(self.url, None)
            self._remove_made()

    def _remove_made(self) -> None:
        """Remove the folders that `acquire` made, if they are empty."""
        for folder in self._made_folders:
            try:
                folder.rmdir()
            except OSError:  # not empty: the run has started
                break

    def _try(self) -> dict[str, Any] | None:
        """Take the lease if no driver holds the folder; return the holder otherwise."""
        found = read_lease(self.url)
        is_alone = True
        if found is not None and found.get("id") != self.id:
            if _is_alive(self.url, found):
                return found
            is_alone = _remove(self.url, found.get("id"))
        self._content["renewed"] = time.time()
        fs, path = locate(join(self.url, RunFile.LEASE))
        if is_local(fs):
            self._made_folders = self._made_folders or _make_folder(Path(path).parent)
            # Linked when complete, so that a reader never gets a part of a lease.
            complete = Path(f"{path}.{self.id}")
            complete.write_bytes(self._bytes())
            try:
                _link(complete, path)
            except FileExistsError:
                return read_lease(self.url)
            finally:
                complete.unlink()
            if is_alone:
                return None
        else:
            write_bytes(join(self.url, RunFile.LEASE), self._bytes())
        if not self.url.startswith("memory://"):
            time.sleep(SETTLE_S)
        found = read_lease(self.url)
        return None if found is None or found.get("id") == self.id else found

    def _renew(self) -> None:
        """Renew the lease until its release; runs in a thread."""
        while not self._released.wait(RENEW_S):
            try:
                found = read_lease(self.url)
                if found is not None and found.get("id") != self.id:
                    self.taken_by = identity_text(found)
                    interrupt_main_thread()
                    return
                self._content["renewed"] = time.time()
                write_bytes(join(self.url, RunFile.LEASE), self._bytes())
            except Exception:  # the store is unreachable, also for drivers that wait for the lease
                continue

    def _bytes(self) -> bytes:
        return json.dumps(self._content, indent=1).encode()


@contextmanager
def held(url: str, *, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold a folder while the context lasts.

    Args:
        wait_s: how long to wait for a live holder, in seconds.

    Raises:
        HeldError: another driver holds the folder, or has taken it over within the context.
        ValueError: the folder cannot be reached or written.
    """
    lease = Lease(url)
    with translate_storage_errors(lease.url):
        lease.acquire(wait_s)
    try:
        yield lease
    except BaseException as error:
        if lease.taken_by is not None:
            raise HeldError(
                f"{lease.url} was taken over by {lease.taken_by}, because this process had not renewed its lease "
                f"for {STALE_S:.0f} s; this process stops"
            ) from error
        raise
    finally:
        lease.release()


def read_lease(url: str) -> dict[str, Any] | None:
    """Return the content of a folder's lease; None: no lease; empty: the file is truncated or corrupt."""
    fs, path = locate(join(url, RunFile.LEASE))
    try:
        data: Any = fs.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise ValueError(
            f"{join(url, RunFile.LEASE)} is a folder, but a run writes a file of this name; remove it"
        ) from None
    return _parsed(data)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = parse_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(url: str, found: dict[str, Any]) -> bool:
    """Return whether the driver of a lease is alive; for another host, wait for a renewal up to STALE_S seconds."""
    if is_of_this_system(found):
        return is_running(found)
    if _is_ancient(url, found):
        return False
    say(
        f"{url} is held by {identity_text(found)}; waiting up to {STALE_S:.0f} s to see whether that driver is alive"
    )
    until_s = time.monotonic() + STALE_S
    while time.monotonic() < until_s:
        time.sleep(POLL_S)
        now = read_lease(url)
        if now is None:
            return False
        if now != found:
            return True
    return False


def _is_ancient(url: str, found: dict[str, Any]) -> bool:
    """Return whether the last renewal is older than ANCIENT_S, so that no wait is needed."""
    renewed = found.get("renewed")
    if not isinstance(renewed, int | float):
        return True
    if not time.time() - ANCIENT_S > renewed:
        return False
    fs, path = locate(join(url, RunFile.LEASE))
    fs.invalidate_cache(path)
    try:
        written = fs.modified(path).timestamp()
    except (NotImplementedError, FileNotFoundError):  # the store has no times, or the lease was removed
        return True
    return time.time() - written > ANCIENT_S


def _remove(url: str, lease_id: Any) -> bool:
    """Remove the lease of this id, if it still exists; return whether a lock kept other drivers out."""
    fs, path = locate(join(url, RunFile.LEASE))
    with _locked(Path(path).parent) if is_local(fs) else contextlib.nullcontext(False) as is_alone:
        found = read_lease(url)
        if found is not None and found.get("id") == lease_id:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)
    return is_alone


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder on a disk; yield whether the lock is held, since some file systems have no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # no such folder, or no permission: later calls raise the error
        yield False
        return
    try:
        yield _is_locked(descriptor)
    finally:
        os.close(descriptor)  # releases the lock


def _is_locked(descriptor: int) -> bool:
    until_s = time.monotonic() + SETTLE_S
    while time.monotonic() < until_s:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # removing a lease is short; packing holds the lock for long
            time.sleep(0.01)
        except OSError:
            return False
        else:
            return True
    return False


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and its parents; return the new folders, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _link(file: Path, name: str) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: `name` exists.
    """
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        with Path(name).open("xb") as copy:
            copy.write(file.read_bytes())


def _held_message(url: str, found: dict[str, Any]) -> str:
    return (
        f"{url} is held by {identity_text(found)}, which is working there; wait until it is done, stop it, or choose "
        "another name. A driver that died frees the folder at once on its own host, and after "
        f"{STALE_S:.0f} s on others"
    )
