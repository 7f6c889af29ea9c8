"""idx files: plain or gzipped, in the folder or under data/, and refused when they are damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.data.datasets.idx import FILES, read_parts

ARRAYS = {
    name: np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    for part, number in (("train", 5), ("test", 2))
    for name, shape in zip(FILES[part], ((number, 3, 4), (number,)), strict=True)
}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(params=["", ".gz"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "data").mkdir()
    for n, (name, array) in enumerate(ARRAYS.items()):
        content = gzip.compress(idx(array)) if request.param else idx(array)
        (tmp_path / ("data" if n % 2 else ".") / f"{name}{request.param}").write_bytes(content)
    return tmp_path


def test_parts(folder: Path) -> None:
    parts = read_parts(folder, "get it")
    assert list(parts) == ["train", "test"]
    for part, names in FILES.items():
        for found, name in zip(parts[part], names, strict=True):
            np.testing.assert_array_equal(found, ARRAYS[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file of unsigned bytes"),
        (b"\0\0\x0d\x01" + bytes(8), "is not an idx file of unsigned bytes"),  # floats
        (b"\0\0\x08\x03" + bytes(8), "is not an idx file of unsigned bytes"),  # no third dimension
        (
            idx(np.zeros((5, 3, 4), np.uint8))[:-1],
            "holds 59 bytes, but 5 x 3 x 4 by its header.*download it again",
        ),
        (idx(np.zeros((5, 3, 4), np.uint8)) + b"x", "holds 61 bytes, but 5 x 3 x 4 by its header"),
    ],
)
def test_damaged_files(folder: Path, content: bytes, message: str) -> None:
    name = FILES["train"][0]
    (folder / name).write_bytes(content)  # the plain file comes first
    with pytest.raises(ValueError, match=rf"{folder}/{name} {message}"):
        read_parts(folder, "get it")


def test_missing_and_damaged_archives(tmp_path: Path) -> None:
    name = FILES["train"][0]
    with pytest.raises(
        ValueError, match=rf"{tmp_path} lacks {name} \(or {name}\.gz, or either under data/\); get it"
    ):
        read_parts(tmp_path, "get it")
    whole = gzip.compress(idx(ARRAYS[name]))
    for content in (b"no gzip", whole[:-9], whole[:12] + b"\xff" * 9 + whole[21:]):
        (tmp_path / f"{name}.gz").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.gz cannot be unpacked: "):
            read_parts(tmp_path, "get it")
