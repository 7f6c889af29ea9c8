"""Disk cache of decoded images, shared by the workers of a node: from the second epoch on, nothing is decoded.

A file holds the images of one split. Its name is a hash of everything that determines the pixels, besides the encoded
bytes themselves.

    checksums    4 bytes for each sample of the split, in the order of positions; 0: the slot is empty
    slots        (side_px, side_px, 3) uint8 for each sample, in the same order, for as many samples as have room

The pixels of a slot are written before its checksum. So a slot is empty if the process is killed in between. Several
workers may write a slot at the same time, since they write the same bytes. Every process compares a slot with its
checksum at the first read; after a power loss, for example, a damaged slot is emptied, and its image is decoded again.

All files together do not exceed the limit, nor most of the free space of the disk; samples without room are decoded in
every epoch. Before a file gets fewer slots than its split has samples, files that no process uses are deleted, the
least recently used ones first. Locks end with the process that holds them. A failing write ends writing, with a
warning; the run continues.

Files are read as memory and written by calls, since a full disk is an error of a call, but would end a process that
writes to memory. So would reading beyond the end: no file in use is made shorter.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import shutil
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch

from fourds_dist.data.io.disk_cache import EXAMPLE_FOLDER, CacheFolderError, cache_folder
from fourds_dist.io.light_torchvision import torchvision

log = logging.getLogger(__name__)

DECODER = f"1 torch {torch.__version__} torchvision {torchvision.__version__} Pillow {PIL.__version__}"
"""Identifies the decoder. Another decoder, or another version of its libraries, may give other grey levels."""
LARGEST_SHARE_OF_FREE = 0.9
"""Share of the disk's free space that the cache may take; checkpoints and logs may be on the same disk."""
GIB = 1 << 30
_CHECKSUM = np.dtype("<u4")
_PAGE_BYTES = 4096


class DecodedDiskCache:
    """Decoded images of one split in a file; safe to use from many threads and processes.

    Args:
        folder: `data.cache_dir`; the files are in its folder `decoded`.
        limit_bytes: size limit of all files of the folder together.
        identity: determines the pixels of every position, apart from the encoded bytes; see `Slot`.
        num_samples: number of samples of the split.
        side_px: side of the decoded images.
        title: names the split in messages.

    Raises:
        CacheFolderError: the folder is in a store, or cannot be made, written or locked.
    """

    def __init__(
        self, folder: str, limit_bytes: int, identity: str, num_samples: int, side_px: int, title: str
    ) -> None:
        self.num_samples = num_samples
        self._title, self._folder = title, Path(cache_folder(folder), "decoded")
        self._slot_bytes = 3 * side_px * side_px
        self._first_slot = -(-_CHECKSUM.itemsize * num_samples // _PAGE_BYTES) * _PAGE_BYTES
        self._verified = np.zeros(num_samples, dtype=bool)
        self._may_write, self._num_damaged = True, 0
        name = hashlib.sha256(f"{DECODER}\0{identity}\0{side_px}".encode()).hexdigest()[:32]
        try:
            self._folder.mkdir(exist_ok=True)
            with _locked(self._folder):
                self._file = os.open(self._folder / f"{name}.pixels", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._file)
                fcntl.flock(self._file, fcntl.LOCK_SH)  # in use; see `_Used.is_unused`
                os.utime(self._file)
                self.num_slots = self._reserve(self._folder / f"{name}.pixels", limit_bytes)
            num_bytes = self._offset(self.num_slots)
            memory = mmap.mmap(self._file, num_bytes, prot=mmap.PROT_READ) if self.num_slots else b""
        except OSError as error:
            raise CacheFolderError(
                f"data.cache_dir={folder} cannot hold decoded images: {error.strerror}; give a folder on a disk of "
                f"each node, for example data.cache_dir={EXAMPLE_FOLDER}, or remove data.cache_decoded_gib"
            ) from None
        # The memory shows what any process writes to the file.
        self._checksums = np.frombuffer(memory, _CHECKSUM, count=self.num_slots)
        images = np.frombuffer(
            memory, np.uint8, self.num_slots * self._slot_bytes, self._first_slot if memory else 0
        )
        self._images = images.reshape(self.num_slots, side_px, side_px, 3)

    @property
    def share(self) -> float:
        """Share of the samples that have a slot."""
        return self.num_slots / max(1, self.num_samples)

    @property
    def num_held(self) -> int:
        """Number of images in the cache."""
        return int(np.count_nonzero(self._checksums))

    def holds(self, positions: np.ndarray) -> np.ndarray:
        """Return for each position whether its slot holds an image."""
        held = positions < self.num_slots
        held[held] = self._checksums[positions[held]] != 0
        return held

    def read(self, position: int, encoded_checksum: int) -> np.ndarray | None:
        """Return an image in the file's memory, (side_px, side_px, 3); None if its slot is empty or damaged."""
        if position >= self.num_slots or not (expected := int(self._checksums[position])):
            return None
        pixels_HWC = self._images[position]
        if not self._verified[position]:
            if _checksum(pixels_HWC, encoded_checksum) != expected:
                self._empty(position)
                return None
            self._verified[position] = True
        return pixels_HWC

    def write(self, position: int, encoded_checksum: int, pixels_HWC: np.ndarray) -> None:
        """Write an image, unless its slot holds one or has no room."""
        if not self._may_write or position >= self.num_slots or self._checksums[position]:
            return
        checksum = np.array(_checksum(pixels_HWC, encoded_checksum), _CHECKSUM)
        try:
            _write(self._file, pixels_HWC.data.cast("B"), self._offset(position))
            _write(self._file, memoryview(checksum.tobytes()), _CHECKSUM.itemsize * position)
        except OSError as error:
            if self._may_write:
                self._may_write = False
                log.warning("%s: %s; no more decoded images are cached", self._folder, error.strerror)

    def _offset(self, position: int) -> int:
        return self._first_slot + self._slot_bytes * position

    def _empty(self, position: int) -> None:
        """Empty a damaged slot, so that its image is decoded and written again."""
        with suppress(OSError):
            _write(self._file, memoryview(bytes(_CHECKSUM.itemsize)), _CHECKSUM.itemsize * position)
        if not self._num_damaged:
            log.warning(
                "%s: the cached image at position %d of %s is damaged and is decoded again; others are not logged",
                *(self._folder, position, self._title),
            )
        self._num_damaged += 1

    def _reserve(self, path: Path, limit_bytes: int) -> int:
        """Give the file the size for as many slots as have room, and return their number.

        Holes of the file take no space until they are written.
        """
        others = [_Used.of(other) for other in self._folder.glob("*.pixels") if other != path]
        unused = sorted((other for other in others if other.is_unused()), key=lambda other: other.used_s)
        whole, own = self._offset(self.num_samples), _Used.of(path)
        while True:
            by_limit = limit_bytes - sum(other.num_bytes for other in others)
            free = LARGEST_SHARE_OF_FREE * shutil.disk_usage(self._folder).free
            by_disk = int(free) + own.allocated - sum(other.unwritten for other in others)
            if min(by_limit, by_disk) >= whole or not unused:
                break
            others.remove(oldest := unused.pop(0))
            oldest.path.unlink(missing_ok=True)
        if own.num_bytes > max(0, by_limit) and _has_no_other_user(self._file):
            os.ftruncate(self._file, 0)  # the limit is lower now
        num_slots = self._num_slots(min(by_limit, by_disk))
        if num_slots > self._num_slots(os.fstat(self._file).st_size):
            os.ftruncate(self._file, self._offset(num_slots))
        num_slots = self._num_slots(os.fstat(self._file).st_size)
        if num_slots < self.num_samples:
            cause = "free space of the disk" if by_disk < by_limit else f"limit of {limit_bytes / GIB:g} GiB"
            _warn_once(
                f"{self._folder}: the {cause} leaves room for decoded images of {num_slots} of the {self.num_samples} "
                f"samples of {self._title}, all of which take {whole / GIB:.1f} GiB; the others are decoded in every "
                "epoch (data.cache_decoded_gib, data.cache_dir)"
            )
        return num_slots

    def _num_slots(self, num_bytes: int) -> int:
        """Return the number of slots in a file of this size."""
        return min(self.num_samples, max(0, (num_bytes - self._first_slot) // self._slot_bytes))


class Slot(NamedTuple):
    """An image's place in the cache.

    The checksum of the encoded bytes takes part in that of the pixels: other bytes at the same position do not match.
    """

    cache: DecodedDiskCache
    position: int
    encoded_checksum: int

    def read(self) -> np.ndarray | None:
        """See `DecodedDiskCache.read`."""
        return self.cache.read(self.position, self.encoded_checksum)

    def write(self, pixels_HWC: np.ndarray) -> None:
        """See `DecodedDiskCache.write`."""
        self.cache.write(self.position, self.encoded_checksum, pixels_HWC)


class _Used(NamedTuple):
    """Size and last use of a file."""

    path: Path
    num_bytes: int
    allocated: int
    used_s: float

    @classmethod
    def of(cls, path: Path) -> _Used:
        state = path.stat()
        return cls(path, state.st_size, 512 * state.st_blocks, state.st_mtime)

    @property
    def unwritten(self) -> int:
        return max(0, self.num_bytes - self.allocated)

    def is_unused(self) -> bool:
        """Return whether no process uses the file; the caller holds the folder's lock, so none begins to."""
        file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return _has_no_other_user(file)
        finally:
            os.close(file)


def _has_no_other_user(file: int) -> bool:
    """Return whether no other process uses an open file; this process keeps using it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        fcntl.flock(file, fcntl.LOCK_SH)  # a refused upgrade may lose the lock
        return False
    fcntl.flock(file, fcntl.LOCK_SH)
    return True


@cache
def _warn_once(text: str) -> None:
    """Log a warning once in this process: every evaluation opens its cache again."""
    log.warning("%s", text)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _checksum(pixels_HWC: np.ndarray, encoded_checksum: int) -> int:
    """Return a checksum that is never 0. zlib's Adler-32 takes a sixth of the time of its CRC."""
    return (zlib.adler32(pixels_HWC.data) ^ encoded_checksum) or 1


def _write(file: int, data: Any, offset: int) -> None:
    """Write all bytes; a write that the disk cuts short continues, and then raises the disk's error."""
    while len(data):
        num_written = os.pwrite(file, data, offset)
        data, offset = data[num_written:], offset + num_written
