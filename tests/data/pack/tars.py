"""Small tars for the tests, written by Python's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_expander

from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.pack.indexing import index_tar

JPEG = b"\xff\xd8\xff image "

Files = Iterable[tuple[str, bytes]]


def tar_bytes(files: Files, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files with the given names, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(
    number: int, *, begin: int = 0, image_bytes: int = 700, classes: int = 3
) -> list[tuple[str, bytes]]:
    """Members of so many samples: k0000.cls, k0000.jpg, ..."""
    files = []
    for n in range(begin, begin + number):
        files += [
            (f"k{n:04}.cls", str(n % classes).encode()),
            (f"k{n:04}.jpg", JPEG + bytes([n % 256]) * image_bytes),
        ]
    return files


def webdataset_samples(data: bytes) -> list[dict[str, Any]]:
    """What webdataset's own reader makes of a tar: __key__ and fields of each sample."""
    read = group_by_keys(tar_file_expander([{"url": "s.tar", "stream": io.BytesIO(data)}]))
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in read]


def index_of(data: bytes, **options: object) -> ShardIndex:
    """The index of a tar named s.tar."""
    return index_tar(io.BytesIO(data), "s.tar", **options)  # pyright: ignore[reportArgumentType]


def fields_of(index: ShardIndex, data: bytes, row: int) -> dict[str, bytes]:
    """The fields of a sample, cut out of the tar by its index."""
    places = zip(index.fields, index.fields_offsets[row], index.fields_sizes[row], strict=True)
    return {name: data[begin : begin + size] for name, begin, size in places if begin >= 0}
