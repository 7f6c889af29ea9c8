"""A packed or indexed dataset folder as a domain, to be packed again: into other shards, with smaller images."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.format.manifest import Manifest, index_url, read_manifest, shard_url
from fourds_dist.data.pack.shard_images import shard_images
from fourds_dist.io.storage import locate, translate_storage_errors

_OF_THE_SHARDS = ("packing", "indexed", "grey", "remarks")
"""Notes that hold for the shards of a manifest, not for its images."""


def packed_domain(url: str, *, name: str | None = None) -> tuple[Domain, Manifest]:
    """Return the images of a dataset folder, with their labels and splits, and its manifest.

    A sample's image and label are read; other fields are left out. Shards are read one after the other, each from its
    beginning to its end.

    Args:
        name: name of the domain; None: that of the dataset.

    Raises:
        ValueError: there is no dataset at the path or URL; in a pass, a shard or an index that cannot be read, or a
            shard that was changed.
    """
    manifest = read_manifest(url)
    notes = {key: value for key, value in manifest.notes.items() if key not in _OF_THE_SHARDS}
    notes |= {"resharded from": f"{manifest.name} {manifest.fingerprint}"}

    def produce() -> Iterator[Example]:
        for split, shards in manifest.splits.items():
            for shard in shards:
                yield from _examples(url, manifest, split, shard.name)

    num_images = sum(map(manifest.num_samples, manifest.splits))
    return Domain(name or manifest.name, manifest.classes, produce, notes, num_images), manifest


def _examples(url: str, manifest: Manifest, split: str, shard: str) -> Iterator[Example]:
    where, tar = index_url(url, shard), shard_url(url, shard)
    fs, path = locate(where)
    with translate_storage_errors(where):
        index = ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]
    for row, data in shard_images(tar, index):
        key, label = str(index.keys[row]), int(index.labels[row])
        if zlib.crc32(data) != index.checksums[row]:
            raise ValueError(
                f"{tar}/{key} differs from its checksum; `python -m fourds_dist.pack verify {url}` lists all "
                "damage; restore the shard, or pack or index the data again"
            )
        if label >= len(manifest.classes):
            raise ValueError(
                f"{where}: the sample {key!r} has label {label}, but {url} has {len(manifest.classes)} classes; "
                "index the shards again with their list of classes"
            )
        source = str(index.sources[row]) if len(index.sources) else ""
        yield Example(
            key=key,
            image=data,
            extension=str(index.extensions[row]),
            label=None if label == UNLABELLED else manifest.classes[label],
            split=split,
            file=Path(source) if source else None,
        )
