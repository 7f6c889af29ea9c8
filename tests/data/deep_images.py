"""Images of more than 8 bits, written byte by byte where Pillow writes none: PNGs and TIFFs of any type of values."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Channels -> PNG's colour type."""
SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
CODES = {3: "H", 4: "I", 11: "f"}
"""Of a TIFF's fields: type -> struct's letter."""


def encoded(image: Image.Image, format: str, **options) -> bytes:
    """An image as a file."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png16(values: np.ndarray, chunks: Mapping[bytes, bytes] = {}) -> bytes:
    """A PNG of 16-bit values (H, W, channels), with chunks before its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    parts = [chunk(b"IHDR", head), *(chunk(*one) for one in chunks.items())]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def tiff(values: np.ndarray, order: str = "<", fields: Mapping[int, tuple[int, list]] = {}) -> bytes:
    """An uncompressed TIFF of values (H, W, channels) in their own type.

    Args:
        order: of bytes, `<` or `>`.
        fields: more of its fields, or others: tag -> (type, values).
    """
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data += bytes(len(data) % 2)
    own = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [values.dtype.itemsize * 8] * channels), 259: (3, [1]),
        262: (3, [2 if channels > 2 else 1]), 273: (4, [8]), 277: (3, [channels]), 278: (3, [height]),
        279: (4, [values.nbytes]), 284: (3, [1]), 339: (3, [SAMPLE_FORMATS[values.dtype.kind]] * channels),
    } | dict(fields)  # fmt: skip
    table, beyond = struct.pack(f"{order}H", len(own)), b""
    begin = 8 + len(data) + 2 + 12 * len(own) + 4
    for tag, (kind, numbers) in sorted(own.items()):
        packed = struct.pack(f"{order}{len(numbers)}{CODES[kind]}", *numbers)
        if len(packed) > 4:
            packed, beyond = struct.pack(f"{order}I", begin + len(beyond)), beyond + packed
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8 + len(data)) + data + table + bytes(4) + beyond


def pgm(values: np.ndarray, largest: int) -> bytes:
    """A PGM of 16-bit values (H, W)."""
    return b"P5\n%d %d\n%d\n" % (*values.shape[::-1], largest) + values.astype(">u2").tobytes()
