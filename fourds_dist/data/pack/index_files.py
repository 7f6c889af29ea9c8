"""Read and write the index files of a dataset folder."""

from __future__ import annotations

from fourds_dist.data.format.index import ShardIndex
from fourds_dist.io.storage import locate, translate_storage_errors, write_bytes


def read_index(where: str) -> ShardIndex:
    """Return the index at a path or URL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no index, or the store denies access.
    """
    fs, path = locate(where)
    with translate_storage_errors(where):
        return ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]


def write_index(where: str, index: ShardIndex) -> None:
    """Write an index to a path or URL, atomically."""
    with translate_storage_errors(where):
        write_bytes(where, index.to_bytes())
