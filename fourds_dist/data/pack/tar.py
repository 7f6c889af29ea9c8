"""Read a tar strictly, in one pass, and report damage that Python's tarfile and webdataset ignore.

tarfile takes a corrupt header for the end of the archive, and accepts a missing end; both lose samples without an
error. `TarStream` reads every member whole, checks the checksums of headers, reads GNU and PAX long names, and requires
the end-of-archive mark. Damage appears in the stream as a `TarFault`, between the members before and after.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHUNK_BYTES = 1 << 20
HEAD_BYTES = 32
"""Number of first bytes of each file that are stored, to recognise the file's format."""
_LONGEST_NAME_BYTES = 1 << 20
_LONGEST_END_BYTES = 1 << 20
"""More zeros at the end than any blocking factor writes mean that the file was allocated but never filled."""

_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip",
    b"<": "HTML or XML, probably an error page",
}  # fmt: skip


class TarFault(ValueError):
    """A fault of a tar or of one of its samples.

    Args:
        kind: short name of the kind of fault, for counting: garbled, cut, link, ...
        where: path or URL of the tar.
        offset: offset of the faulty header, in bytes.
        member: name of the faulty member, if known.
        what: what is wrong.
        remedy: what to do.
    """

    def __init__(
        self, kind: str, where: str, offset: int, member: str | None, what: str, remedy: str
    ) -> None:
        named = f", member {member!r}" if member is not None else ""
        super().__init__(f"{where}{named}, byte {offset}: {what}; {remedy}")
        self.kind, self.where, self.offset, self.member = kind, where, offset, member


@dataclass(frozen=True)
class Member:
    """One file or link of a tar, read whole."""

    name: str
    is_link: bool
    """Whether the member is a link: its content is the content of another member."""
    header: int
    """Offset of the member's first header, in bytes."""
    offset: int
    """Offset of the data, in bytes."""
    size: int
    """Of the data, in bytes."""
    crc32: int
    content: bytes | None
    """The data; None if larger than the limit that the caller gave for this member."""
    head: bytes = b""
    """The first HEAD_BYTES of the data."""


class TarStream:
    """One pass over a tar, without seeking.

    Args:
        file: open at the tar's first byte.
        where: name of the tar in messages.
        keep: name of a member -> largest size in bytes for which the member's data is returned; 0: no data.
        checksum: compute the SHA-256 of the whole file.

    After iteration to the end, `num_bytes` and `sha256` (None without `checksum`) describe the whole file.
    """

    def __init__(
        self, file: BinaryIO, where: str, *, keep: Callable[[str], int], checksum: bool = True
    ) -> None:
        self._file = file
        self._where = where
        self._keep = keep
        self._hash = hashlib.sha256() if checksum else None
        self._ahead = b""  # a block that was read ahead
        self.num_bytes = 0

    @property
    def sha256(self) -> str | None:
        return self._hash.hexdigest() if self._hash else None

    def __iter__(self) -> Iterator[Member | TarFault]:
        """Yield files, links and faults in the order of the tar.

        After a fault, reading continues at the next header that can be read, if there is one.
        """
        while True:
            try:
                member = self._next()
            except TarFault as fault:
                yield fault
                if not self._find_header():
                    return
                continue
            if member is None:
                return
            if member.name:
                yield member

    def _next(self) -> Member | None:
        """Read the next member; its name is "" if it is neither a file nor a link; None: end of the tar."""
        begin = self.num_bytes - len(self._ahead)
        long_name: str | None = None
        long_size: int | None = None
        while True:
            block = self._block(begin)
            if block == _ZEROS:
                self._check_end(begin)
                return None
            info = self._header(block, begin)
            match info.type:
                case tarfile.GNUTYPE_LONGNAME:
                    long_name = _text(self._extra(info, begin).split(b"\0", 1)[0])
                case tarfile.GNUTYPE_LONGLINK | tarfile.XGLTYPE:
                    self._extra(info, begin)
                case tarfile.XHDTYPE | tarfile.SOLARIS_XHDTYPE:
                    records = self._records(self._extra(info, begin), begin)
                    long_name = records.get("path", long_name)
                    long_size = int(records["size"]) if "size" in records else long_size
                case _:
                    return self._member(info, long_name or info.name, long_size, begin)

    def _member(self, info: tarfile.TarInfo, name: str, long_size: int | None, begin: int) -> Member:
        is_link = info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE)
        if is_link or info.type in (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            return Member(name if is_link else "", is_link, begin, self.num_bytes, 0, 0, None)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            kind = "sparse" if info.type == tarfile.GNUTYPE_SPARSE else f"of type {info.type!r}"
            raise self._fault("type", begin, name, f"the member is {kind}, which has no byte range in the tar",
                              "write the tar again without --sparse")  # fmt: skip
        size = info.size if long_size is None else long_size
        if size < 0:
            raise self._fault(
                "garbled", begin, name, f"a size of {size}", "the shard is damaged: copy or pack it again"
            )
        offset, crc, chunks = self.num_bytes, 0, [] if size <= self._keep(name) else None
        remaining, head = size, b""
        while remaining:
            chunk = self._read(min(remaining, _CHUNK_BYTES))
            if not chunk:
                raise self._cut(begin, name, f"inside a member: {remaining} of its {size} bytes are missing")
            head = head or chunk[:HEAD_BYTES]
            crc = zlib.crc32(chunk, crc)
            remaining -= len(chunk)
            if chunks is not None:
                chunks.append(chunk)
        padding = -size % BLOCK
        if len(self._read(padding)) < padding:
            raise self._cut(begin, name, "in the padding after a member")
        content = None if chunks is None else b"".join(chunks)
        return Member(name, False, begin, offset, size, crc, content, head)

    def _block(self, begin: int) -> bytes:
        block, self._ahead = self._ahead or self._read(BLOCK), b""
        if len(block) == BLOCK:
            return block
        if self.num_bytes == 0:
            raise self._fault("empty", 0, None, "the file is empty", "copy or pack it again")
        if block and self.num_bytes > BLOCK:
            raise self._cut(begin, None, "inside a header")
        if block:
            self._header(block, begin)
        raise self._cut(begin, None, "between two members: the end-of-archive mark is missing")

    def _header(self, block: bytes, begin: int) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            if begin == 0:
                kind = next((k for magic, k in _OTHER_FORMATS.items() if block.startswith(magic)), None)
                what = f"this is no tar{f' but {kind}' if kind else ''}"
                remedy = (
                    "ranges can only be read from plain tars; decompress it"
                    if kind
                    else "copy or pack it again"
                )
                raise self._fault("no tar", 0, None, what, remedy) from None
            raise self._fault("garbled", begin, None, f"the header cannot be read ({error})",
                              "the shard is damaged: copy or pack it again") from None  # fmt: skip

    def _extra(self, info: tarfile.TarInfo, begin: int) -> bytes:
        """Content of an extension header, which describes the next member."""
        if info.size > _LONGEST_NAME_BYTES:
            raise self._fault("garbled", begin, None, f"a name of {info.size} bytes",
                              "the shard is damaged: copy or pack it again")  # fmt: skip
        data = self._read(info.size + -info.size % BLOCK)
        if len(data) < info.size:
            raise self._cut(begin, None, "inside a long name")
        return data[: info.size]

    def _records(self, data: bytes, begin: int) -> dict[str, str]:
        """PAX records, each 'length key=value\\n'."""
        records: dict[str, str] = {}
        try:
            while data:
                length = int(data[: data.index(b" ")])
                key, equals, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
                if not equals or data[length - 1 : length] != b"\n":
                    raise ValueError("no record")
                records[_text(key)] = _text(value)
                data = data[length:]
            int(records.get("size", 0))
        except ValueError as error:
            raise self._fault("garbled", begin, None, f"the PAX header cannot be read ({error})",
                              "the shard is damaged: copy or pack it again") from None  # fmt: skip
        if any(key.startswith("GNU.sparse.") for key in records):
            raise self._fault("type", begin, records.get("GNU.sparse.name"), "the member is sparse",
                              "write the tar anew, without --sparse")  # fmt: skip
        return records

    def _check_end(self, begin: int) -> None:
        """Read to the end of the file, and check that only zeros follow."""
        while block := self._read(BLOCK):
            if block.strip(b"\0"):
                self._ahead = block if len(block) == BLOCK else b""
                raise self._fault(
                    "after end", self.num_bytes - len(block), None, "data follows the end-of-archive mark",
                    "tars were joined by `cat`, or zeros overwrote a part; join tars by `tar -A`, or copy again",
                )  # fmt: skip
        if (zeros := self.num_bytes - begin) > _LONGEST_END_BYTES:
            raise self._fault("cut", begin, None, f"the tar ends in {zeros} zeros: a copy did not finish",
                              "copy the tar again")  # fmt: skip

    def _find_header(self) -> bool:
        """Read to the next block with a valid header; False: end of the file."""
        while block := self._ahead or self._read(BLOCK):
            self._ahead = b""
            if block[257:262] == b"ustar":
                try:
                    tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
                except (tarfile.HeaderError, ValueError):
                    continue
                self._ahead = block
                return True
        return False

    def _read(self, num_bytes: int) -> bytes:
        """Read `num_bytes` bytes; fewer only at the end of the file."""
        chunk = self._file.read(num_bytes)
        while len(chunk) < num_bytes and (more := self._file.read(num_bytes - len(chunk))):
            chunk += more
        self.num_bytes += len(chunk)
        if self._hash:
            self._hash.update(chunk)
        return chunk

    def _cut(self, begin: int, member: str | None, how: str) -> TarFault:
        return self._fault("cut", begin, member, f"the tar ends at byte {self.num_bytes} {how}",
                           "the copy is incomplete: copy or pack the tar again")  # fmt: skip

    def _fault(self, kind: str, offset: int, member: str | None, what: str, remedy: str) -> TarFault:
        return TarFault(kind, self._where, offset, member, what, remedy)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
