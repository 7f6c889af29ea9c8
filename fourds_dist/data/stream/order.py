"""The order of samples: a pure function of (data, global batch, seed, epoch), independent of the number of workers.

    chunks      every shard is cut into runs of neighbouring samples; one ranged read reads a chunk
    epoch       the sequence of all chunks in an order drawn by (seed, epoch)
    partitions  the sequence is cut into C equal pieces; C divides the global batch
    blocks      each partition is cut into pieces, and each piece is shuffled by (seed, epoch, partition, block)

Global batch t takes the next G / C samples of every partition, so (epoch, step) alone is the position in the data. Rank
r of N owns the partitions from r C / N to (r + 1) C / N: no two ranks read the same samples in an epoch, and after a
change of N the run resumes with exactly the samples that it has not yet shown. Block boundaries are staggered over the
partitions, so that reads are spread evenly over the steps. An epoch of S samples is S // G steps; the samples that are
left over differ from epoch to epoch.

The README of `fourds_dist/data` lists measurements of the mixing; `tests/data/stream/test_order.py` checks them.

This module reads nothing itself and draws from no global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Generic, TypeVar

import numpy as np

from fourds_dist.data.seeds import BLOCK, ORDER, generator

SampleT = TypeVar("SampleT")

MAX_PARTITIONS = 128
"""Largest number of partitions, and so of workers."""


def num_partitions(global_batch_size: int) -> int:
    """Return the largest divisor of the global batch that is at most MAX_PARTITIONS."""
    return max(c for c in range(1, min(global_batch_size, MAX_PARTITIONS) + 1) if global_batch_size % c == 0)


def partitions_of(rank: int, world_size: int, partitions: int) -> range:
    """Return the partitions that a rank reads: a consecutive range, not empty; every partition belongs to one rank.

    Raises:
        ValueError: more workers than partitions.
    """
    if world_size > partitions:
        raise ValueError(
            f"{world_size} workers cannot share a global batch with {partitions} partitions (its largest divisor up to "
            f"{MAX_PARTITIONS}); choose a global_batch_size that is a multiple of {world_size}, or fewer workers"
        )
    return range(rank * partitions // world_size, (rank + 1) * partitions // world_size)


def groups_of_partitions(partitions: int, samples_per_partition: int) -> list[range]:
    """Return the groups of partitions whose samples of a step are partners (`augment.mixing`).

    A group is one partition or, where a step takes one sample per partition, two or three neighbouring ones.
    """
    num = partitions if samples_per_partition > 1 else max(1, partitions // 2)
    return [range(k * partitions // num, (k + 1) * partitions // num) for k in range(num)]


def groups_of_rank(
    partitions: int, samples_per_partition: int, rank: int, world_size: int, *, mixes: bool
) -> list[range]:
    """Return the groups of partitions that a rank reads: without mixing, each partition is a group.

    Raises:
        ValueError: more ranks than groups.
    """
    if not mixes:
        return [range(k, k + 1) for k in partitions_of(rank, world_size, partitions)]
    groups = groups_of_partitions(partitions, samples_per_partition)
    if world_size > len(groups):
        raise ValueError(
            f"data.augment.mixup_alpha or cutmix_alpha mixes images within {len(groups)} groups of a global batch, too "
            f"few for {world_size} workers; choose a global_batch_size that is a multiple of {2 * world_size}, or "
            "fewer workers"
        )
    return [groups[k] for k in partitions_of(rank, world_size, len(groups))]


@dataclass(frozen=True)
class Chunks:
    """Runs of neighbouring samples of a split.

    Args:
        first: (M,) position of each chunk's first sample.
        count: (M,) number of samples in each chunk, >= 1.
    """

    first: np.ndarray
    count: np.ndarray

    @classmethod
    def cut(cls, shard_sizes: np.ndarray, samples_per_chunk: int) -> Chunks:
        """Cut shards, given their numbers of samples, into chunks of nearly equal size; no chunk spans two shards."""
        pieces = -(-shard_sizes // samples_per_chunk)
        shard_of_chunk = np.repeat(np.arange(len(shard_sizes)), pieces)
        begins = np.cumsum(pieces) - pieces
        piece = np.arange(len(shard_of_chunk)) - begins[shard_of_chunk]
        size, num = shard_sizes[shard_of_chunk], pieces[shard_of_chunk]
        low, high = piece * size // num, (piece + 1) * size // num
        shard_begins = np.cumsum(shard_sizes) - shard_sizes
        return cls(shard_begins[shard_of_chunk] + low, high - low)

    @property
    def num_samples(self) -> int:
        """Number of samples in all chunks."""
        return int(self.count.sum())


@dataclass(frozen=True)
class Order:
    """The order of one split for a global batch size, over all epochs.

    Args:
        chunks: chunks of the split.
        global_batch_size: samples that every step takes from this split.
        samples_per_block: samples of a partition that are shuffled among each other.
        seed: seed of the order; streams with independent orders need different seeds.
    """

    chunks: Chunks
    global_batch_size: int
    samples_per_block: int
    seed: tuple[int, ...]

    @cached_property
    def partitions(self) -> int:
        """Number of partitions."""
        return num_partitions(self.global_batch_size)

    @property
    def samples_per_partition_step(self) -> int:
        """Number of samples that a step takes from each partition."""
        return self.global_batch_size // self.partitions

    @cached_property
    def num_steps_per_epoch(self) -> int:
        """Number of whole global batches in the split."""
        return self.chunks.num_samples // self.global_batch_size

    @property
    def partition_length(self) -> int:
        """Number of samples of a partition in an epoch."""
        return self.num_steps_per_epoch * self.samples_per_partition_step

    def epoch(self, epoch: int) -> EpochOrder:
        """Return the order of one epoch, in time O(number of chunks)."""
        permutation = generator(ORDER, *self.seed, epoch).permutation(len(self.chunks.first))
        ends = np.cumsum(self.chunks.count[permutation])
        return EpochOrder(self, epoch, self.chunks.first[permutation], ends - self.chunks.count[permutation])

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, step within the epoch) of the run's step; all count from 0."""
        return divmod(step, self.num_steps_per_epoch)


@dataclass(frozen=True)
class EpochOrder:
    """The sequence of one epoch, by partition and block."""

    order: Order
    epoch: int
    first: np.ndarray
    """(M,) position of the first sample of the m-th chunk of the sequence."""
    begin: np.ndarray
    """(M,) index in the sequence at which the m-th chunk begins."""

    def blocks(self, partition: int, start: int = 0) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the shuffled blocks of a partition, from the block that holds its `start`-th sample on.

        A block is (positions in the split, number of its samples that come before `start`).
        """
        length, size = self.order.partition_length, self.order.samples_per_block
        # Blocks end at first + k size, and `first` is staggered over the partitions. No block is smaller than half of
        # `size`, unless the data are tiny.
        first = size - size // 2 * partition // self.order.partitions
        last = max(0, (length - first + size // 2) // size)
        number = 0 if start < first else min(last, 1 + (start - first) // size)
        for k in range(number, last + 1):
            low = 0 if k == 0 else first + (k - 1) * size
            high = length if k == last else first + k * size
            positions = self._positions(partition * length + low, partition * length + high)
            shuffle = generator(BLOCK, *self.order.seed, self.epoch, partition, k).permutation(high - low)
            yield positions[shuffle], max(0, start - low)

    def batch(self, step: int, partitions: range | None = None) -> np.ndarray:
        """Return the positions of the samples of a step of this epoch, partition after partition, as streams deliver
        them."""
        per_step = self.order.samples_per_partition_step
        taken = []
        for partition in partitions if partitions is not None else range(self.order.partitions):
            num_missing = per_step
            for positions, skip in self.blocks(partition, step * per_step):
                taken.append(positions[skip : skip + num_missing])
                num_missing -= len(taken[-1])
                if not num_missing:
                    break
        return np.concatenate(taken)

    def _positions(self, low: int, high: int) -> np.ndarray:
        """Return the positions in the split of the samples low..high of the sequence."""
        numbers = np.arange(low, high)
        chunk = np.searchsorted(self.begin, numbers, side="right") - 1
        return self.first[chunk] + numbers - self.begin[chunk]


class PartitionReader(Generic[SampleT]):
    """One partition of one split, from a step of the run on, epoch after epoch; the next block is read ahead.

    Args:
        epoch_of: maps an epoch's number to its order.
        submit: starts a read of the samples at the given positions.
    """

    def __init__(
        self,
        order: Order,
        partition: int,
        step: int,
        epoch_of: Callable[[int], EpochOrder],
        submit: Callable[[np.ndarray], Future[list[SampleT]]],
    ) -> None:
        self._blocks = _all_blocks(order, partition, step, epoch_of)
        self._submit = submit
        self._block: list[SampleT] = []
        self._at = 0
        self._next: tuple[Future[list[SampleT]], int] | None = self._submit_next()

    def take(self, count: int) -> list[tuple[list[SampleT], int]]:
        """Return the next `count` samples, each as its block and its index there; wait for a block that is still being
        read."""
        drawn: list[tuple[list[SampleT], int]] = []
        while len(drawn) < count:
            if self._at == len(self._block):
                future, skip = self._next or self._submit_next()
                self._block, self._at, self._next = future.result(), skip, None
            stop = min(len(self._block), self._at + count - len(drawn))
            drawn += [(self._block, at) for at in range(self._at, stop)]
            self._at = stop
            if self._next is None and 2 * self._at >= len(self._block):
                self._next = self._submit_next()
        return drawn

    def _submit_next(self) -> tuple[Future[list[SampleT]], int]:
        positions, skip = next(self._blocks)
        return self._submit(positions), skip


def _all_blocks(
    order: Order, partition: int, step: int, epoch_of: Callable[[int], EpochOrder]
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the blocks of a partition, epoch after epoch."""
    epoch, step_of_epoch = order.place(step)
    start = step_of_epoch * order.samples_per_partition_step
    while True:
        yield from epoch_of(epoch).blocks(partition, start)
        epoch, start = epoch + 1, 0


def epochs_of(order: Order) -> Callable[[int], EpochOrder]:
    """Return `order.epoch` with a cache of two epochs: partitions of one rank are rarely further apart."""
    return lru_cache(maxsize=2)(order.epoch)


def evaluation_share(num_samples: int, rank: int, world_size: int) -> range:
    """Return the positions that a rank evaluates: a consecutive range; every position belongs to exactly one rank."""
    return range(rank * num_samples // world_size, (rank + 1) * num_samples // world_size)
