"""The manifest over foreign tars, and the indices that it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fourds_dist.data.index import ShardIndex
from fourds_dist.data.manifest import SPLITS, Manifest, Shard, index_url
from fourds_dist.data.pack.shard_labels import ShardLabels
from fourds_dist.storage import explained, locate, write_bytes


def read_index(where: str) -> ShardIndex:
    """The index at a path or URL."""
    fs, path = locate(where)
    with explained(where):
        return ShardIndex.from_bytes(fs.cat_file(path), where)  # pyright: ignore[reportArgumentType]


def write_index(where: str, index: ShardIndex) -> None:
    """Write an index to a path or URL."""
    with explained(where):
        write_bytes(where, index.to_bytes())


def merged(
    held: Manifest | None,
    folder: str,
    name: str | None,
    classes: tuple[str, ...],
    shards: Mapping[str, list[Shard]],
    counts: Mapping[str, Counter[str]],
    indexed: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, object],
) -> Manifest:
    """The manifest that is there, if there is one, with the splits that were indexed; a tar leaves its former split."""
    mine = {split: tuple(listed) for split, listed in shards.items()}
    my_counts = {split: tuple(count[name] for name in classes) for split, count in counts.items()}
    if held is None:
        order = [split for split in SPLITS if split in mine]
        splits = {split: mine[split] for split in order}
        my_counts = {split: my_counts[split] for split in order}
        name = name or folder.rpartition("/")[2]
        return Manifest(name, classes, splits, my_counts, {"indexed": dict(indexed), **notes})
    moved = {shard.name for listed in mine.values() for shard in listed}
    splits, all_counts = {**held.splits, **mine}, {**held.class_counts, **my_counts}
    for split in set(held.splits) - set(mine):
        left = tuple(shard for shard in held.splits[split] if shard.name not in moved)
        if left != held.splits[split]:
            splits[split], all_counts[split] = left, _counted(folder, left, len(classes))
    order = [split for split in SPLITS if splits.get(split)]
    kept = {key: value for key, value in held.notes.items() if key != "remarks"}
    return Manifest(
        held.name,
        classes,
        {split: splits[split] for split in order},
        {split: all_counts[split] for split in order},
        {**kept, "indexed": {**held.notes.get("indexed", {}), **indexed}, **notes},
    )


def _counted(folder: str, shards: Sequence[Shard], num_classes: int) -> tuple[int, ...]:
    """Labelled images of each class, by the indices of shards that are in the manifest already."""
    counts = [0] * num_classes
    for shard in shards:
        for position, count in ShardLabels.of(read_index(index_url(folder, shard.name))).by_label.items():
            counts[position] += count
    return tuple(counts)
