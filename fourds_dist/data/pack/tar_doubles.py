"""Find equal images in existing tars by the sizes and CRC-32 checksums in their indices; no image is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fourds_dist.data.format.index import UNLABELLED, ShardIndex
from fourds_dist.data.format.manifest import SPLITS, Manifest, index_url
from fourds_dist.data.pack.index_files import read_index
from fourds_dist.data.pack.leaks import several_classes, several_splits, some_equal

MOST_COMPARED = 10_000
"""Largest number of earlier indexed tars whose indices are read again to find equal images."""


@dataclass(frozen=True)
class Prints:
    """Fingerprints and labels of the images of a shard; equal images have equal fingerprints."""

    sizes_and_checksums: np.ndarray
    """(n,) uint64: the lower half of the size, then the CRC-32."""
    labels: np.ndarray
    """(n,) int32, as in the index."""

    @classmethod
    def of(cls, index: ShardIndex) -> Prints:
        """Return the fingerprints of an index."""
        sizes = index.sizes.astype(np.uint64) << np.uint64(32)
        return cls(sizes | index.checksums.astype(np.uint64), index.labels)

    def placed(self, positions: Mapping[int, int] | None) -> Prints:
        """Return the same fingerprints with mapped labels.

        Args:
            positions: old label -> new label; None: labels stay.
        """
        if positions is None:
            return self
        present, inverse = np.unique(self.labels, return_inverse=True)
        table = np.array([positions.get(int(label), UNLABELLED) for label in present], dtype=np.int32)
        return Prints(self.sizes_and_checksums, table[inverse] if len(present) else self.labels)


def tar_leaks(
    shards: Sequence[tuple[str, Prints]],
    classes: Sequence[str],
    title: Callable[[int, int], str],
) -> list[str]:
    """Return remarks on equal images, and on equal images of several classes or splits.

    Args:
        shards: (split, fingerprints) of each shard, with labels that are positions in `classes`.
        title: (position of the shard, row) -> name of the image in messages.
    """
    if not shards:
        return []
    prints = np.concatenate([of_shard.sizes_and_checksums for _, of_shard in shards])
    order = np.argsort(prints, kind="stable")
    begins = np.flatnonzero(np.r_[True, prints[order][1:] != prints[order][:-1]]) if len(prints) else []
    lengths = np.diff(np.r_[begins, len(prints)]).astype(np.int64)
    rows = order[np.repeat(lengths > 1, lengths)]  # equal images are adjacent, in the order of the shards
    lengths = lengths[lengths > 1]
    if not len(rows):
        return []
    begins = np.cumsum(lengths) - lengths
    ends_of_shards = np.cumsum([len(of_shard.labels) for _, of_shard in shards])
    shard_numbers = np.searchsorted(ends_of_shards, rows, side="right")
    labels = np.concatenate([of_shard.labels for _, of_shard in shards])[rows]
    splits = np.array([SPLITS.index(split) for split, _ in shards])[shard_numbers]

    def conflicts(values: np.ndarray) -> tuple[int, int, int] | None:
        """(number of sets with several values, positions of two images of the first such set with two values)."""
        known = values != UNLABELLED
        lowest = np.minimum.reduceat(np.where(known, values, np.iinfo(np.int32).max), begins)
        highest = np.maximum.reduceat(values, begins)
        sets = np.flatnonzero(lowest < highest)
        if not len(sets):
            return None
        chosen = sets[np.argmin(rows[begins[sets]])]
        members = np.arange(begins[chosen], begins[chosen] + lengths[chosen])
        members = members[known[members]]
        other = members[np.flatnonzero(values[members] != values[members[0]])[0]]
        return len(sets), int(members[0]), int(other)

    def title_at(position: int) -> str:
        shard = int(shard_numbers[position])
        return title(shard, int(rows[position] - (ends_of_shards[shard] - len(shards[shard][1].labels))))

    lines = [some_equal(len(rows), len(lengths), "their sizes and CRC-32 are equal")]
    if found := conflicts(labels):
        num, *pair = found
        first, other = ((title_at(position), classes[int(labels[position])]) for position in pair)
        lines.append(several_classes(num, first, other))
    if found := conflicts(splits):
        num, *pair = found
        first, other = ((title_at(position), SPLITS[splits[position]]) for position in pair)
        lines.append(several_splits(num, first, other))
    return lines


def all_leaks(
    manifest: Manifest, folder: str, indexed: Sequence[tuple[str, str, Prints]], num_threads: int
) -> list[str]:
    """Return remarks on equal images of all splits, including tars that were indexed earlier.

    Args:
        indexed: (name, split, fingerprints) of the shards that were indexed now.
    """
    known = {name for name, _, _ in indexed}
    others = [
        (shard.name, split)
        for split, shards in manifest.splits.items()
        for shard in shards
        if shard.name not in known
    ]

    def prints_of(name: str) -> Prints | None:
        # Training and `verify` report indices that cannot be read.
        with contextlib.suppress(ValueError, FileNotFoundError):
            return Prints.of(read_index(index_url(folder, name)))
        return None

    compared = others[:MOST_COMPARED]
    with ThreadPoolExecutor(num_threads) as pool:
        found = list(pool.map(prints_of, (name for name, _ in compared)))
    earlier = [
        (name, split, prints)
        for (name, split), prints in zip(compared, found, strict=True)
        if prints is not None
    ]
    shards = [*indexed, *earlier]

    def title(number: int, row: int) -> str:
        name = shards[number][0]
        return f"{name}/{read_index(index_url(folder, name)).keys[row]}"

    lines = tar_leaks([(split, prints) for _, split, prints in shards], manifest.classes, title)
    if num_skipped := len(others) - len(earlier):
        lines.append(f"{num_skipped} tars that were indexed earlier were not compared for equal images")
    return lines
