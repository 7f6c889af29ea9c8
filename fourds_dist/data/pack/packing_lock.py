"""A lock on a dataset folder: one process packs at a time, and the error in other processes names this process.

packing.json in the folder names the process and the shards that a crash may leave behind. On a disk, a file lock on the
folder distinguishes a running process from a killed one: the system releases the lock when the process ends. Object
stores have no locks: the latest process takes the folder, unless an earlier one is known to run on this host, and the
earlier process stops at its next check.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fsspec import AbstractFileSystem

from fourds_dist.data.files.progress import OnProgress
from fourds_dist.io.json_text import parse_json
from fourds_dist.io.storage import is_local, locate, translate_storage_errors, write_bytes
from fourds_dist.processes.identity import identity_text, is_of_this_system, is_running, own_identity

PACKING = "packing.json"


class PackingLock:
    """The lock on a folder, held while the context lasts.

    Raises:
        ValueError: (on entry) another process packs into the folder, or the store denies access.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = f"{url}/{PACKING}"
        self._fs, self._path = locate(self._where)
        self._process = {"token": uuid.uuid4().hex, **own_identity()}
        self._lock: int | None = None
        self._made: list[Path] = []
        self._is_noted = False
        self._lists_shards = False

    def __enter__(self) -> PackingLock:
        folder = Path(self._path).parent
        with translate_storage_errors(self._url):
            if is_local(self._fs):
                if folder.exists() and not folder.is_dir():
                    return self  # `held_dataset` refuses the file
                self._lock_folder(folder)
            else:
                self._fs.invalidate_cache()
            before = _read(self._fs, self._path)
            if before is not None and self._lock is None and _runs_here(before):
                raise ValueError(_taken(self._url, before))
            try:
                self._write(_shards(before))
            except OSError:
                if not is_local(self._fs):
                    raise
                # A read-only folder may hold the same data already; if not, writing the shards fails.
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            if not self._lists_shards and self.is_ours():
                self._fs.rm_file(self._path)
                self._fs.invalidate_cache()
        for folder in reversed(self._made):  # only empty folders are removed
            with contextlib.suppress(OSError):
                folder.rmdir()
        if self._lock is not None:
            os.close(self._lock)

    def list_shards(self, names: Sequence[str]) -> None:
        """List in packing.json the shards that may exist from now on; the caller removes packing.json at the end."""
        self._write(names)
        self._lists_shards = True

    def is_ours(self) -> bool:
        """Whether no other process has taken the folder since."""
        if not self._is_noted or self._lock is not None:
            return True
        found = _read(self._fs, self._path)
        return found is not None and found.get("token") == self._process["token"]

    def check(self) -> None:
        """Check that no other process has taken the folder.

        Raises:
            ValueError: another process has taken the folder; the message names the process.
        """
        if not self.is_ours():
            raise ValueError(_taken(self._url, _read(self._fs, self._path) or {}))

    def checking(self, on_progress: OnProgress) -> OnProgress:
        """Return `on_progress` with a check at each call."""

        def checked(what: str, done: int, total: int | None) -> None:
            self.check()
            on_progress(what, done, total)

        return checked

    def _write(self, names: Sequence[str]) -> None:
        write_bytes(self._where, json.dumps({"shards": list(names), "by": self._process}).encode())
        self._is_noted = True

    def _lock_folder(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for attempt in range(100):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # another process failed and has just removed the folder
                continue
            except OSError:
                return  # no permission or no such device: writing raises the error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                by = _read(self._fs, self._path) or {}
                if "pid" in by or attempt == 99:
                    raise ValueError(_taken(self._url, by)) from None
                time.sleep(0.02)  # the other process has the lock and is writing packing.json
                continue
            except OSError:  # a file system without locks
                os.close(lock)
                return
            if folder.exists() and os.fstat(lock).st_ino == folder.stat().st_ino:
                self._lock, self._made = lock, missing[::-1]
                return
            os.close(lock)


def check_unlocked(url: str) -> None:
    """Check that no other process packs into a folder; nothing is written.

    Raises:
        ValueError: another process packs into the folder (the message names the process), or the store denies access.
    """
    url = url.rstrip("/")
    fs, path = locate(f"{url}/{PACKING}")
    with translate_storage_errors(url):
        if (by := _read(fs, path)) is None:
            return
        if not is_local(fs):
            is_taken = _runs_here(by)
        else:
            lock = os.open(Path(path).parent, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                is_taken = False
            except BlockingIOError:
                is_taken = True
            except OSError:
                is_taken = _runs_here(by)
            finally:
                os.close(lock)
    if is_taken:
        raise ValueError(_taken(url, by))


def _read(fs: AbstractFileSystem, path: str) -> dict[str, Any] | None:
    """Process and shards in packing.json; None if there is no such file, {} if the file is truncated."""
    fs.invalidate_cache()
    try:
        found = parse_json(fs.cat_file(path))  # pyright: ignore[reportArgumentType]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    by = found.get("by")
    return {**(by if isinstance(by, dict) else {}), "shards": found.get("shards")}


def _taken(url: str, by: dict[str, Any]) -> str:
    return f"{url} is being packed by {identity_text(by)}; wait until that process has ended, or choose another folder"


def _shards(before: dict[str, Any] | None) -> list[str]:
    names = (before or {}).get("shards")
    return [str(name) for name in names] if isinstance(names, list) else []


def _runs_here(by: dict[str, Any]) -> bool:
    """Whether the process that packing.json names is known to run on this host."""
    return is_of_this_system(by) and is_running(by)
