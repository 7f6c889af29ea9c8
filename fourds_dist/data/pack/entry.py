"""Samples to be written, and the temporary file that holds their images."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fourds_dist.data.files.duplicates import read_part
from fourds_dist.io.names import shown


class Spool:
    """A temporary file of image bytes; the system removes the file when the process ends, also after a kill."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, data: bytes) -> int:
        """Append data and return its offset in the file, in bytes."""
        begin = self._end
        while data:
            written = os.pwrite(self._file.fileno(), data, self._end)
            self._end += written
            data = data[written:]
        return begin

    def read(self, begin: int, num_bytes: int) -> bytes:
        """Return `num_bytes` bytes from offset `begin`; safe for concurrent threads."""
        return os.pread(self._file.fileno(), num_bytes, begin)


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample to be written."""

    key: str
    extension: str
    label: int
    split: str | None
    place: Path | int
    """The image's file, or the image's offset in the spool, in bytes."""
    size: int
    """Of the image, in bytes."""
    group: str | None = None
    made_from: Path | None = None
    """The file that an image in the spool was made from; None: unknown."""

    @property
    def file(self) -> Path | None:
        """The file of the image, or that it was made from."""
        return self.made_from if isinstance(self.place, int) else self.place

    @property
    def title(self) -> str:
        """Name of the image in messages: its file or, without a file, its key."""
        return self.key if self.file is None else shown(self.file)

    def read_part(self, spool: Spool, begin: int, num_bytes: int) -> bytes:
        """Return a range of bytes of the image.

        Raises:
            ValueError: the file was removed.
        """
        if isinstance(self.place, int):
            return spool.read(self.place + begin, num_bytes)
        return read_part(self.place, begin, num_bytes)

    def read(self, spool: Spool) -> bytes:
        """Return the bytes of the image.

        Raises:
            ValueError: the file was changed or removed since it was listed.
        """
        if isinstance(self.place, int):
            return spool.read(self.place, self.size)
        try:
            data = self.place.read_bytes()
        except FileNotFoundError:
            raise ValueError(f"{self.place} was removed during packing; pack again") from None
        if len(data) != self.size:
            raise ValueError(
                f"{self.place} changed during packing, from {self.size} to {len(data)} bytes; pack again"
            )
        return data

    @property
    def tar_bytes(self) -> int:
        """Size of the sample in the tar, in bytes: two headers, the label and the image, each in blocks of 512."""
        return 3 * 512 + self.size + -self.size % 512
