"""Images of foreign tars that are equal, over all shards: by the checksums and sizes that their indices hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fourds_dist.data.index import UNLABELLED, ShardIndex
from fourds_dist.data.pack.leaks import leaks


@dataclass(frozen=True)
class ShardPrints:
    """What is compared of a shard.

    Args:
        split: of its images.
        prints: (n,) uint64, one of each image, which equal images share.
        labels: (n,) class of each image in the data set's list; -1 unlabelled.
        index: reads its index, for the name of an image.
    """

    split: str
    prints: np.ndarray
    labels: np.ndarray
    tar: str
    index: Callable[[], ShardIndex]


@dataclass(frozen=True)
class _Sample:
    shard: ShardPrints
    row: int
    group: str | None = None

    @property
    def label(self) -> int:
        return int(self.shard.labels[self.row])

    @property
    def split(self) -> str:
        return self.shard.split

    @property
    def title(self) -> str:
        return f"{self.shard.tar}/{self.shard.index().keys[self.row]}"


def equal_samples(shards: Sequence[ShardPrints], classes: Sequence[str]) -> list[str]:
    """Sentences on equal images, as `leaks` tells them of those that are packed."""
    prints = np.concatenate([shard.prints for shard in shards]) if shards else np.zeros(0, np.uint64)
    order = np.argsort(prints, kind="stable")
    ordered = prints[order]
    same = ordered[1:] == ordered[:-1]
    several = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if not len(several):
        return []
    begins = np.concatenate([[0], np.cumsum([len(shard.prints) for shard in shards])])
    places = order[several]
    owners = np.searchsorted(begins, places, side="right") - 1
    entries = [_Sample(shards[n], int(place - begins[n])) for n, place in zip(owners, places, strict=True)]
    cuts = np.flatnonzero(np.diff(ordered[several])) + 1
    sets = [part.tolist() for part in np.split(np.arange(len(several)), cuts)]
    sets.sort(key=lambda numbers: int(places[numbers[0]]))
    return leaks(entries, sets, classes, are_drawn=False)


def positions(labels: np.ndarray, by_label: dict[int, int]) -> np.ndarray:
    """Labels of a shard as positions in the data set's class list."""
    present, inverse = np.unique(labels, return_inverse=True)
    table = np.array([by_label.get(int(label), UNLABELLED) for label in present], np.int32)
    return table[inverse] if len(present) else labels
