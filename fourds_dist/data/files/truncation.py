"""Detection of truncated image files by their ends and lengths, without decoding.

Interrupted copies are the most common damage, and file headers do not show it. `--decode` finds damage that only
decoding shows.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

_TAIL_BYTES = 1 << 16


def truncation_of(path: Path) -> str | None:
    """Return an error message if an image file is truncated; None if it is complete, or only decoding would show.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head, num_bytes = file.read(32), path.stat().st_size
        if head[:2] == b"\xff\xd8":
            return _jpeg(file, num_bytes)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _shorter(num_bytes, struct.unpack("<I", head[4:8])[0] + 8)
        if head[:2] == b"BM" and len(head) >= 30 and head[14:18] >= b"\x28\0\0\0":
            return _bmp(head, num_bytes)
        if head[:4] == b"GIF8":
            return _gif(file)
        if head[:4] == b"\x89PNG":
            file.seek(max(0, num_bytes - _TAIL_BYTES))
            return None if b"IEND" in file.read() else "it is truncated: the end chunk of the PNG is missing"
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(path, num_bytes)
        if head[:2] in (b"P4", b"P5", b"P6"):
            return _ppm(path, num_bytes)
    return None


def _shorter(num_bytes: int, needed: int) -> str | None:
    if num_bytes >= needed:
        return None
    return f"it is truncated: {num_bytes} bytes of {needed}"


def _jpeg(file: BinaryIO, num_bytes: int) -> str | None:
    """A complete JPEG has an end marker after the start of its first scan; a thumbnail before that has its own
    marker."""
    file.seek(max(0, num_bytes - 2))
    if file.read() == b"\xff\xd9":
        return None
    file.seek(0)
    data, at = file.read(), 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # padding, or bytes between segments
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xDA:
            break
        has_no_length = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8
        at += 2 if has_no_length else 2 + (data[at + 2] << 8 | data[at + 3])
    if at + 4 <= len(data) and data.find(b"\xff\xd9", at) >= 0:
        return None
    return "it is truncated: the end marker of the JPEG is missing"


def _bmp(head: bytes, num_bytes: int) -> str | None:
    offset, width, height = (*struct.unpack("<I", head[10:14]), *struct.unpack("<ii", head[18:26]))
    bits = struct.unpack("<H", head[28:30])[0]
    is_compressed = head[30:31] not in (b"\0", b"\3", b"")
    row_bytes = (abs(width) * bits + 31) // 32 * 4
    return None if is_compressed else _shorter(num_bytes, offset + row_bytes * abs(height))


def _tiff(path: Path, num_bytes: int) -> str | None:
    """The strips or tiles of the first image of a complete TIFF end within the file."""
    # Decoding reports files that cannot be opened.
    with suppress(Exception), Image.open(path, formats=("TIFF",)) as image:
        fields: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        pairs = [(fields[at], fields[of]) for at, of in ((273, 279), (324, 325)) if {at, of} <= set(fields)]
        if not pairs:
            return "it is truncated: its directory does not list the position of its pixels"
        return _shorter(num_bytes, max(at + of for at, of in zip(*pairs[0], strict=True)))
    return None


def _ppm(path: Path, num_bytes: int) -> str | None:
    with suppress(Exception), Image.open(path, formats=("PPM",)) as image:
        begin, (width, height) = image.tile[0].offset, image.size
        if image.mode == "1":
            return _shorter(num_bytes, begin + (width + 7) // 8 * height)
        largest = int(path.read_bytes()[:begin].split()[-1])
        return _shorter(
            num_bytes, begin + width * height * len(image.getbands()) * (1 if largest < 256 else 2)
        )
    return None


def _gif(file: BinaryIO) -> str | None:
    """The blocks of the first frame, which is the one used, end within a complete GIF."""
    file.seek(0)
    data = file.read()
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return None
        if kind == 0x2C:
            local = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 << (local & 7) + 1 if local & 0x80 else 0)
        elif kind == 0x21:
            at += 2
        else:
            return None  # not a block of the standard; decoding reports it
        while at < len(data) and data[at]:
            at += 1 + data[at]
        if at < len(data) and kind == 0x2C:
            return None
        at += 1
    return "it is truncated: the blocks of its first frame do not end"
