"""One driver at a time in a folder: a small file tells who holds it, and is written again every few seconds.

    lease.json   {"id", "host", "pid", "began", "space", "since", "renewed"}

A driver of the same host that is gone no longer holds the folder. Of a driver on another host only the file is known:
it is watched for STALE_S seconds, by this host's clock, and a driver that does not write it meanwhile no longer holds
the folder. A second driver is refused while the first one works, unless it is told to wait. The lease is removed at the
end, also after errors and Ctrl-C.

On a disk two drivers that come at once are told apart by the file system: one alone can create the file, and a lock on
the folder lets one alone remove the lease of a dead driver. In a store, and on a disk without locks, the driver that
wrote last has the folder, and the other one finds that out SETTLE_S seconds later, before it begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourds_dist.json_text import parsed_json
from fourds_dist.runs.layout import RunFile
from fourds_dist.storage import explained, is_local, join, locate, plain, write_bytes
from fourds_dist.terminal import say

RENEW_S = 10.0
"""Seconds between two renewals."""
STALE_S = 60.0
"""Seconds without a renewal after which a holder on another host counts as gone."""
ANCIENT_S = 3600.0
"""Age at which a lease is not watched any more, by its own time and by that of the file: one clock may be wrong."""
SETTLE_S = 1.5
"""Seconds after which a store's file is read again, to see who wrote last."""
POLL_S = 1.0

_here: dict[str, str] = {}
"""Folder -> id of the lease that this process holds."""
_lock = threading.Lock()


class HeldError(RuntimeError):
    """A folder that another driver holds; the message tells which."""


class Lease:
    """The lease of a folder, held by this process.

    Args:
        url: the folder.
    """

    def __init__(self, url: str) -> None:
        self.url = plain(url)
        self.taken_by: str | None = None
        """Who has taken the folder over, while this process was away for long."""
        self._about = {"id": uuid.uuid4().hex, **_identity(), "since": _now(), "renewed": time.time()}
        self._made: list[Path] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def id(self) -> str:
        """Tells this lease from all others."""
        return str(self._about["id"])

    def acquire(self, wait_s: float) -> None:
        """Take the folder; see `held`."""
        with _lock:
            if self.url in _here:
                raise HeldError(f"{self.url} is in use by this very process; wait until that run is done")
            _here[self.url] = self.id
        try:
            until_s = time.monotonic() + wait_s
            while (found := self._try()) is not None:
                if time.monotonic() >= until_s:
                    raise HeldError(_told(self.url, found))
                time.sleep(POLL_S)
        except BaseException:
            _here.pop(self.url, None)
            self._remove_made()
            raise
        self._thread.start()

    def release(self) -> None:
        """Give the folder back; a lease that another driver has written stays."""
        self._ends.set()
        self._thread.join(timeout=RENEW_S)
        try:
            _remove(self.url, self.id)
        except Exception:  # whatever a store's driver raises; the lease runs out
            pass
        finally:
            _here.pop(self.url, None)
            self._remove_made()

    def _remove_made(self) -> None:
        """Remove the folders that were made for the lease alone."""
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # it is not empty: the run has begun
                break

    def _try(self) -> dict[str, Any] | None:
        """Take the folder if nobody holds it; gives the holder otherwise."""
        found = read_lease(self.url)
        is_alone = True
        if found is not None and found.get("id") != self.id:
            if _is_alive(self.url, found):
                return found
            is_alone = _remove(self.url, found.get("id"))
        self._about["renewed"] = time.time()
        fs, path = locate(join(self.url, RunFile.LEASE))
        if is_local(fs):
            self._made = self._made or _make_folder(Path(path).parent)
            whole = Path(f"{path}.{self.id}")  # a reader never sees half of a lease
            whole.write_bytes(self._bytes())
            try:
                _link(whole, path)
            except FileExistsError:
                return read_lease(self.url)
            finally:
                whole.unlink()
            if is_alone:
                return None
        else:
            write_bytes(join(self.url, RunFile.LEASE), self._bytes())
        if not self.url.startswith("memory://"):
            time.sleep(SETTLE_S)
        found = read_lease(self.url)
        return None if found is None or found.get("id") == self.id else found

    def _keep(self) -> None:
        """Renew the lease until it is released, in a thread."""
        while not self._ends.wait(RENEW_S):
            try:
                found = read_lease(self.url)
                if found is not None and found.get("id") != self.id:
                    self.taken_by = _name(found)
                    _interrupt_main_thread()
                    return
                self._about["renewed"] = time.time()
                write_bytes(join(self.url, RunFile.LEASE), self._bytes())
            except Exception:  # a store that is away; whoever waits for the lease cannot read it either
                continue

    def _bytes(self) -> bytes:
        return json.dumps(self._about, indent=1).encode()


@contextmanager
def held(url: str, *, wait_s: float = 0.0) -> Iterator[Lease]:
    """Hold a folder while the context lasts.

    Args:
        wait_s: how long a driver that holds it and is alive is waited for.

    Raises:
        HeldError: another driver holds it, or has taken it over meanwhile.
        ValueError: the folder cannot be reached, or nothing can be written there.
    """
    lease = Lease(url)
    with explained(lease.url):
        lease.acquire(wait_s)
    try:
        yield lease
    except BaseException as error:
        if lease.taken_by is not None:
            raise HeldError(
                f"{lease.url} was taken over by {lease.taken_by}, as this process had not renewed its lease for "
                f"{STALE_S:.0f} s; it left"
            ) from error
        raise
    finally:
        lease.release()


def read_lease(url: str) -> dict[str, Any] | None:
    """What the lease of a folder says; None: there is none. One that a kill tore says nothing."""
    fs, path = locate(join(url, RunFile.LEASE))
    try:
        data: Any = fs.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise ValueError(
            f"{join(url, RunFile.LEASE)} is a folder, and a run writes a file there; remove it"
        ) from None
    return _parsed(data)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = parsed_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_alive(url: str, found: dict[str, Any]) -> bool:
    """Whether the driver that a lease names still works; one on another host is watched until that is known."""
    mine = _identity()
    if (found.get("host"), found.get("space")) == (mine["host"], mine["space"]):
        pid = found.get("pid")
        return isinstance(pid, int) and _began(pid) is not None and _began(pid) == found.get("began")
    if _is_ancient(url, found):
        return False
    say(
        f"{url} is held by {_name(found)}; waiting up to {STALE_S:.0f} s to see whether that driver is still there"
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
    """Whether nobody has renewed a lease for very long, so that its driver need not be watched."""
    renewed = found.get("renewed")
    if not isinstance(renewed, int | float):
        return True
    if not time.time() - ANCIENT_S > renewed:
        return False
    fs, path = locate(join(url, RunFile.LEASE))
    fs.invalidate_cache(path)
    try:
        written = fs.modified(path).timestamp()
    except (NotImplementedError, FileNotFoundError):  # a store that does not tell; a lease that is gone
        return True
    return time.time() - written > ANCIENT_S


def _remove(url: str, lease_id: Any) -> bool:
    """Remove the lease of this id, if it is still there; gives whether no other driver could remove it meanwhile."""
    fs, path = locate(join(url, RunFile.LEASE))
    with _locked(Path(path).parent) if is_local(fs) else contextlib.nullcontext(False) as is_alone:
        found = read_lease(url)
        if found is not None and found.get("id") == lease_id:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)
    return is_alone


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder on a disk; gives whether it is held. Some file systems have no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # no such folder, or no right to: what follows says so
        yield False
        return
    try:
        yield _is_locked(descriptor)
    finally:
        os.close(descriptor)  # which ends the lock


def _is_locked(descriptor: int) -> bool:
    until_s = time.monotonic() + SETTLE_S
    while time.monotonic() < until_s:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (
            BlockingIOError
        ):  # a driver that removes a lease is done at once; a packing holds the lock for long
            time.sleep(0.01)
        except OSError:
            return False
        else:
            return True
    return False


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; gives those that were made, the innermost first."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _link(file: Path, name: str) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: there is such a file.
    """
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with Path(name).open("xb") as copy:
            copy.write(file.read_bytes())


def _identity() -> dict[str, Any]:
    """This process, and the space in which its number means something: a boot of a machine, or a container there."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid()), "space": _space()}


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return ""


def _began(pid: int) -> str | None:
    """When a process of this host began, as the system counts it; None: there is no such process, or it is over."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "unknown"
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _interrupt_main_thread() -> None:
    """What Ctrl-C does; SIGTERM's work, where a shell has this process ignore Ctrl-C."""
    main = threading.main_thread().ident
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    if main is not None:
        signal.pthread_kill(main, number)


def _name(found: dict[str, Any]) -> str:
    return f"process {found.get('pid', '?')} on {found.get('host', 'an unknown host')} since {found.get('since', '?')}"


def _told(url: str, found: dict[str, Any]) -> str:
    return (
        f"{url} is held by {_name(found)}, which works there now; wait until it is done, stop it, or choose another "
        f"name. A driver that died frees the folder at once on its own host, and after {STALE_S:.0f} s on others"
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
