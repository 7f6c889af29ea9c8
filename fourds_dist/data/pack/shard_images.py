"""The encoded images of a shard, read from its beginning to its end."""

from __future__ import annotations

from collections.abc import Iterator

from fourds_dist.data.format.index import ShardIndex
from fourds_dist.io.storage import locate, translate_storage_errors


def shard_images(tar: str, index: ShardIndex) -> Iterator[tuple[int, bytes]]:
    """Yield the row and the encoded image of each sample of a tar at a path or URL, in the order of its index.

    Raises:
        ValueError: the tar cannot be read.
    """
    fs, path = locate(tar)
    with translate_storage_errors(tar), fs.open(path, "rb") as file:
        for row in range(len(index)):
            file.seek(int(index.offsets[row]))
            yield row, file.read(int(index.sizes[row]))  # pyright: ignore[reportReturnType]
