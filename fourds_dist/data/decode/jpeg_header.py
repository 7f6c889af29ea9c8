"""The header of a JPEG, up to its frame: size, components, and what decides which decoder can read the file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

_BASELINE, _FRAMES = 0xC0, (0xC0, 0xC1, 0xC2)
"""Markers of frames that libjpeg decodes: baseline, extended, progressive."""
_DHT, _SOS, _DQT, _APP1, _APP14 = 0xC4, 0xDA, 0xDB, 0xE1, 0xEE
_EXIF, _ADOBE = b"Exif\0\0", b"Adobe"
_ORIENTATION, _SHORT = 0x0112, 3
_FULL, _HALF_WIDTH, _QUARTER = (1, 1), (2, 1), (2, 2)

HEAD_BYTES = 1024
"""Bytes in which most headers end. Files of one encoder share them, and are parsed once."""


@dataclass(frozen=True)
class JpegHeader:
    """The frame of a JPEG of 8 bits.

    Args:
        height, width: in pixels, before the EXIF orientation is applied.
        is_baseline: whether the frame is baseline, neither extended nor progressive.
        ids: number of each component.
        sampling: (horizontal, vertical) sampling factor of each component.
        quantization: number of each component's quantization table.
        adobe_transform: colour transform of an Adobe segment; None without one.
        orientation: EXIF orientation, 1 if there is none.
    """

    height: int
    width: int
    is_baseline: bool
    ids: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    quantization: tuple[int, ...]
    adobe_transform: int | None = None
    orientation: int = 1

    @property
    def num_components(self) -> int:
        return len(self.ids)

    @property
    def num_pixels(self) -> int:
        return self.height * self.width

    @property
    def suits_jpeg_engine(self) -> bool:
        """Whether the JPEG engine of a GPU decodes the file as libjpeg does: upright grey or YCbCr baseline images in
        the usual chroma sampling."""
        if not self.is_baseline or self.orientation != 1:
            return False
        if self.num_components == 1:
            return True
        is_rgb = self.adobe_transform == 0 or self.ids == tuple(b"RGB")
        chroma = self.sampling[1:]
        return (
            self.num_components == 3
            and not is_rgb
            and self.sampling[0] in (_FULL, _HALF_WIDTH, _QUARTER)
            and chroma == (_FULL, _FULL)
        )


def jpeg_header(data: bytes | memoryview) -> JpegHeader | None:
    """Return the header of a JPEG that libjpeg decodes; None for other files, broken headers and 12 bits.

    Pillow reads the size, too, but holds Python's lock for as long as all other work on a training image takes.
    """
    return _header(data, _segments(data))


def plain_header(data: bytes | memoryview) -> JpegHeader | None:
    """Return `jpeg_header` of a file with all components in one scan and all tables that they use; None for others.

    A JPEG engine decodes files that lack tables, with arbitrary pixels; libjpeg refuses them.
    """
    head = bytes(data[:HEAD_BYTES])
    scan = head.find(b"\xff\xda")
    if 0 <= scan < len(head) - 4:
        end = scan + 2 + (head[scan + 2] << 8 | head[scan + 3])
        if end <= len(head) and (header := _plain_header_of_head(head[:end])) is not None:
            return header
    return _plain_header(data, list(_segments(data)))


@lru_cache(maxsize=4096)
def _plain_header_of_head(head: bytes) -> JpegHeader | None:
    """Return `plain_header` of every file that begins with these bytes; None if the whole file has to be parsed."""
    segments = list(_segments(head))
    is_whole = bool(segments) and segments[-1][0] == _SOS and segments[-1][2] == len(head)
    return _plain_header(head, segments) if is_whole else None


def _plain_header(data: bytes | memoryview, segments: list[tuple[int, int, int]]) -> JpegHeader | None:
    header = _header(data, segments)
    if header is None:
        return None
    quantization: set[int] = set()
    huffman: set[int] = set()
    for marker, begin, end in segments:
        if marker == _DQT:
            quantization |= _quantization_tables(bytes(data[begin:end]))
        elif marker == _DHT:
            huffman |= _huffman_tables(bytes(data[begin:end]))
        elif marker == _SOS:
            num_components, needed = _scan(bytes(data[begin:end]))
            is_plain = num_components == header.num_components and needed <= huffman
            return header if is_plain and quantization.issuperset(header.quantization) else None
    return None


def _header(data: bytes | memoryview, segments: Iterable[tuple[int, int, int]]) -> JpegHeader | None:
    adobe_transform, orientation = None, 1
    for marker, begin, end in segments:
        if marker in _FRAMES:
            return _frame(bytes(data[begin:end]), marker == _BASELINE, adobe_transform, orientation)
        if marker == _APP1 and bytes(data[begin : begin + 6]) == _EXIF:
            orientation = _orientation(bytes(data[begin + 6 : end]))
        elif marker == _APP14 and bytes(data[begin : begin + 5]) == _ADOBE and end - begin >= 12:
            adobe_transform = data[begin + 11]
    return None


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, begin, end) of the contents of each segment up to the first scan; end is within the data."""
    if bytes(data[:2]) != b"\xff\xd8":
        return
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            at += 2
        else:
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            yield marker, at + 4, min(end, len(data))
            if marker == _SOS:
                return
            at = end


# The images of a data set have few different segments, so parsing takes time for the first ones only.
@lru_cache(maxsize=4096)
def _frame(
    segment: bytes, is_baseline: bool, adobe_transform: int | None, orientation: int
) -> JpegHeader | None:
    if len(segment) < 6 or segment[0] != 8 or len(segment) < 6 + 3 * segment[5]:
        return None
    entries = [segment[at : at + 3] for at in range(6, 6 + 3 * segment[5], 3)]
    return JpegHeader(
        height=segment[1] << 8 | segment[2],
        width=segment[3] << 8 | segment[4],
        is_baseline=is_baseline,
        ids=tuple(entry[0] for entry in entries),
        sampling=tuple((entry[1] >> 4, entry[1] & 15) for entry in entries),
        quantization=tuple(entry[2] for entry in entries),
        adobe_transform=adobe_transform,
        orientation=orientation,
    )


@lru_cache(maxsize=256)
def _quantization_tables(segment: bytes) -> frozenset[int]:
    """Return the numbers of the tables that a segment defines."""
    tables: set[int] = set()
    at = 0
    while at < len(segment):
        tables.add(segment[at] & 15)
        at += 129 if segment[at] >> 4 else 65
    return frozenset(tables)


@lru_cache(maxsize=256)
def _huffman_tables(segment: bytes) -> frozenset[int]:
    """Return the class and number of the tables that a segment defines, as in its bytes."""
    tables: set[int] = set()
    at = 0
    while at + 17 <= len(segment):
        tables.add(segment[at])
        at += 17 + sum(segment[at + 1 : at + 17])
    return frozenset(tables)


@lru_cache(maxsize=256)
def _scan(segment: bytes) -> tuple[int, frozenset[int]]:
    """Return the number of components of a scan and the Huffman tables that they use."""
    num_components = segment[0] if segment else 0
    used = segment[2 : 1 + 2 * num_components : 2]
    return num_components, frozenset(table for pair in used for table in (pair >> 4, 0x10 | pair & 15))


def _orientation(tiff: bytes) -> int:
    """Return the orientation in the TIFF part of an EXIF segment; 1 if it has none or an invalid one.

    Pillow takes ten times as long for all tags, with Python's lock held.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (begin,) = struct.unpack_from(f"{order}I", tiff, 4)
    if begin + 2 > len(tiff):
        return 1
    (num_tags,) = struct.unpack_from(f"{order}H", tiff, begin)
    last = min(begin + 2 + 12 * num_tags, len(tiff))
    for at in range(begin + 2, last - 11, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and 2 <= value <= 8 else 1
    return 1
