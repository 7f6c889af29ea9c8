"""Read the idx format of MNIST, plain or gzipped.

Four bytes 0, 0, type (8: unsigned byte), number of dimensions; the dimensions as big-endian 32-bit integers; the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_parts(folder: str | Path, where_from: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the training and test parts of an MNIST-like dataset: images (N, H, W) and labels (N,).

    Args:
        where_from: how to get the dataset, for the error message.

    Raises:
        ValueError: a file is missing, or is not an idx file.
    """
    return {
        part: (_read(_find(Path(folder), images, where_from)), _read(_find(Path(folder), labels, where_from)))
        for part, (images, labels) in FILES.items()
    }


def _find(folder: Path, name: str, where_from: str) -> Path:
    candidates = [
        folder / name,
        folder / f"{name}.gz",
        folder / "data" / name,
        folder / "data" / f"{name}.gz",
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(f"{folder} lacks {name} (or {name}.gz, or either under data/); {where_from}")


def _read(path: Path) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    shape = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(data) != math.prod(shape):
        raise ValueError(
            f"{path} holds {len(data)} bytes, but {' x '.join(map(str, shape))} by its header; the file may be "
            "truncated: download it again"
        )
    return data.reshape(shape)
