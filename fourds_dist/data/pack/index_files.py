"""Indices as files in a dataset folder."""

from __future__ import annotations

from fourds_dist.data.index import ShardIndex
from fourds_dist.storage import explained, locate, write_bytes


def read_index(where: str) -> ShardIndex:
    """The index at a path or URL.

    Raises:
        FileNotFoundError: there is none.
        ValueError: no index, or the store refuses.
    """
    fs, path = locate(where)
    with explained(where):
        return ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]


def write_index(where: str, index: ShardIndex) -> None:
    """Write an index to a path or URL, whole or not at all."""
    with explained(where):
        write_bytes(where, index.to_bytes())
