"""Equal images of foreign tars, told by the size and the CRC-32 that their indices hold; no image is read for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fourds_dist.data.index import UNLABELLED, ShardIndex
from fourds_dist.data.manifest import SPLITS, Manifest, index_url
from fourds_dist.data.pack.index_files import read_index
from fourds_dist.data.pack.leaks import several_classes, several_splits, some_equal

MOST_COMPARED = 10_000
"""Tars indexed earlier whose indices are read once more, to find equal images."""


@dataclass(frozen=True)
class Prints:
    """Of each image of a shard what equal images share, and its label."""

    sizes_and_checksums: np.ndarray
    """(n,) uint64: the lower half of the size, then the CRC-32."""
    labels: np.ndarray
    """(n,) int32, as the index has them."""

    @classmethod
    def of(cls, index: ShardIndex) -> Prints:
        """Those of an index."""
        sizes = index.sizes.astype(np.uint64) << np.uint64(32)
        return cls(sizes | index.checksums.astype(np.uint64), index.labels)

    def placed(self, positions: Mapping[int, int] | None) -> Prints:
        """The same with other labels.

        Args:
            positions: label -> the label that takes its place; None: each keeps its own.
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
    """A sentence each: on equal images, and on those of several classes or splits.

    Args:
        shards: (split, prints) of each; their labels are positions in `classes`.
        title: (number of the shard, row) -> the image, for people.
    """
    if not shards:
        return []
    prints = np.concatenate([one.sizes_and_checksums for _, one in shards])
    order = np.argsort(prints, kind="stable")
    begins = np.flatnonzero(np.r_[True, prints[order][1:] != prints[order][:-1]]) if len(prints) else []
    lengths = np.diff(np.r_[begins, len(prints)]).astype(np.int64)
    rows = order[np.repeat(lengths > 1, lengths)]  # of one set side by side, in the order of the shards
    lengths = lengths[lengths > 1]
    if not len(rows):
        return []
    begins = np.cumsum(lengths) - lengths
    ends_of_shards = np.cumsum([len(one.labels) for _, one in shards])
    places = np.searchsorted(ends_of_shards, rows, side="right")
    labels = np.concatenate([one.labels for _, one in shards])[rows]
    splits = np.array([SPLITS.index(split) for split, _ in shards])[places]

    def two_of(values: np.ndarray) -> tuple[int, int, int] | None:
        """(sets with several values, places of the first image of the first such set and of one of another value)."""
        known = values != UNLABELLED
        least = np.minimum.reduceat(np.where(known, values, np.iinfo(np.int32).max), begins)
        most = np.maximum.reduceat(values, begins)
        torn = np.flatnonzero(least < most)
        if not len(torn):
            return None
        chosen = torn[np.argmin(rows[begins[torn]])]
        within = np.arange(begins[chosen], begins[chosen] + lengths[chosen])
        within = within[known[within]]
        other = within[np.flatnonzero(values[within] != values[within[0]])[0]]
        return len(torn), int(within[0]), int(other)

    def named(at: int) -> str:
        shard = int(places[at])
        return title(shard, int(rows[at] - (ends_of_shards[shard] - len(shards[shard][1].labels))))

    lines = [some_equal(len(rows), len(lengths), "their sizes and CRC-32 are equal")]
    if found := two_of(labels):
        num, *two = found
        first, other = ((named(at), classes[int(labels[at])]) for at in two)
        lines.append(several_classes(num, first, other))
    if found := two_of(splits):
        num, *two = found
        first, other = ((named(at), SPLITS[splits[at]]) for at in two)
        lines.append(several_splits(num, first, other))
    return lines


def all_leaks(
    manifest: Manifest, folder: str, indexed: Sequence[tuple[str, str, Prints]], num_threads: int
) -> list[str]:
    """On equal images of all splits, those included that were indexed earlier.

    Args:
        indexed: (name, split, prints) of the shards that were indexed now.
    """
    known = {name for name, _, _ in indexed}
    others = [
        (shard.name, split)
        for split, shards in manifest.splits.items()
        for shard in shards
        if shard.name not in known
    ]

    def prints_of(name: str) -> Prints | None:
        with contextlib.suppress(
            ValueError, FileNotFoundError
        ):  # training and `verify` say what is wrong with it
            return Prints.of(read_index(index_url(folder, name)))
        return None

    compared = others[:MOST_COMPARED]
    with ThreadPoolExecutor(num_threads) as pool:
        held = list(pool.map(prints_of, (name for name, _ in compared)))
    there = [(*one, found) for one, found in zip(compared, held, strict=True) if found is not None]
    shards = [*indexed, *there]

    def title(number: int, row: int) -> str:
        name = shards[number][0]
        return f"{name}/{read_index(index_url(folder, name)).keys[row]}"

    lines = tar_leaks([(split, one) for _, split, one in shards], manifest.classes, title)
    if num_left := len(others) - len(there):
        lines.append(f"not compared for equal images: {num_left} tars that were indexed earlier")
    return lines
