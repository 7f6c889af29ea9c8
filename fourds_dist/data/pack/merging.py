"""Merge newly indexed tars into the existing manifest of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fourds_dist.data.format.manifest import SPLITS, Manifest, Shard, index_url
from fourds_dist.data.pack.index_files import read_index
from fourds_dist.data.pack.shard_labels import ShardLabels


def merged(
    existing: Manifest | None,
    folder: str,
    name: str | None,
    classes: tuple[str, ...],
    shards: Mapping[str, list[Shard]],
    counts: Mapping[str, Counter[str]],
    indexed: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, object],
) -> Manifest:
    """Return the merged manifest: newly indexed splits replace existing ones, and moved tars leave their old split.

    Args:
        existing: the existing manifest, if there is one.
        folder: path or URL of the manifest's folder.
        name: name of a new dataset; None: the folder's name.
        classes: the class list, in label order.
        shards, counts: split -> newly indexed shards, and images of each class.
        indexed: split -> read options and grey values, for the notes.
        notes: further notes.
    """
    new_splits = {split: tuple(listed) for split, listed in shards.items()}
    new_counts = {split: tuple(count[name] for name in classes) for split, count in counts.items()}
    if existing is None:
        order = [split for split in SPLITS if split in new_splits]
        splits = {split: new_splits[split] for split in order}
        new_counts = {split: new_counts[split] for split in order}
        name = name or folder.rpartition("/")[2]
        return Manifest(name, classes, splits, new_counts, {"indexed": dict(indexed), **notes})
    moved = {shard.name for listed in new_splits.values() for shard in listed}
    splits, all_counts = {**existing.splits, **new_splits}, {**existing.class_counts, **new_counts}
    for split in set(existing.splits) - set(new_splits):
        remaining = tuple(shard for shard in existing.splits[split] if shard.name not in moved)
        if remaining != existing.splits[split]:
            splits[split], all_counts[split] = remaining, _counted(folder, remaining, len(classes))
    order = [split for split in SPLITS if splits.get(split)]
    old_notes = {key: value for key, value in existing.notes.items() if key != "remarks"}
    return Manifest(
        existing.name,
        classes,
        {split: splits[split] for split in order},
        {split: all_counts[split] for split in order},
        {**old_notes, "indexed": {**existing.notes.get("indexed", {}), **indexed}, **notes},
    )


def _counted(folder: str, shards: Sequence[Shard], num_classes: int) -> tuple[int, ...]:
    """Labelled images of each class, counted from the indices of shards."""
    counts = [0] * num_classes
    for shard in shards:
        for position, count in ShardLabels.of(read_index(index_url(folder, shard.name))).by_label.items():
            counts[position] += count
    return tuple(counts)
