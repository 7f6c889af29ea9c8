"""The order of samples: a pure function of (data, global batch, seed, epoch), whatever the number of workers.

    chunks    every shard is cut into runs of neighbouring samples, which one ranged read brings
    epoch     the chunks in an order drawn by (seed, epoch), one after the other
    lanes     that sequence cut into C equal pieces; the number of lanes divides the global batch
    blocks    each lane cut into pieces which are shuffled by (seed, epoch, lane, block)

Global batch t is the next G / C samples of every lane, so the place in the data is (epoch, step) and nothing else. Rank
r of N owns the lanes from r C / N to (r + 1) C / N: it reads no byte that another rank needs, and when N changes the
run goes on with exactly the samples not yet seen. Block boundaries are staggered over the lanes, so that reading is
even. An epoch is S // G steps; which samples are left over differs from epoch to epoch.

README.md beside this file says how well that mixes, and `tests/data/test_order.py` holds those figures. A larger
data.shuffle_mib mixes better. Blocks are what is shuffled, so neighbours stay within a block's time.

Nothing here reads, waits or draws from a global generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MOST_LANES = 128
"""No data set is read in more places at once; also the largest number of workers."""

ORDER, BLOCK, AUGMENT = range(3)
"""What a generator is for; part of every seed, so that no two uses share a sequence."""


def generator(*seed: int) -> np.random.Generator:
    """A generator of its own for every tuple of non-negative integers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def num_lanes(global_batch_size: int) -> int:
    """The largest divisor of the global batch that is at most MOST_LANES."""
    return max(c for c in range(1, min(global_batch_size, MOST_LANES) + 1) if global_batch_size % c == 0)


def lanes_of(rank: int, world_size: int, lanes: int) -> range:
    """The lanes that a rank reads: consecutive ones, every lane on one rank, no rank without any.

    Raises:
        ValueError: more workers than lanes.
    """
    if world_size > lanes:
        raise ValueError(
            f"{world_size} workers cannot share a global batch that is read in {lanes} lanes (its largest divisor up "
            f"to {MOST_LANES}); choose a global_batch_size that is a multiple of {world_size}, or fewer workers"
        )
    return range(rank * lanes // world_size, (rank + 1) * lanes // world_size)


@dataclass(frozen=True)
class Chunks:
    """Runs of neighbouring samples, numbered by position in a split.

    Args:
        first: (M,) position of each chunk's first sample.
        count: (M,) its samples, >= 1.
    """

    first: np.ndarray
    count: np.ndarray

    @classmethod
    def cut(cls, shard_sizes: np.ndarray, samples_per_chunk: int) -> Chunks:
        """Cut shards of the given numbers of samples into chunks of nearly equal size, none across two shards."""
        pieces = -(-shard_sizes // samples_per_chunk)
        shard_of_chunk = np.repeat(np.arange(len(shard_sizes)), pieces)
        begins = np.cumsum(pieces) - pieces
        place = np.arange(len(shard_of_chunk)) - begins[shard_of_chunk]
        size, num = shard_sizes[shard_of_chunk], pieces[shard_of_chunk]
        low, high = place * size // num, (place + 1) * size // num
        shard_begins = np.cumsum(shard_sizes) - shard_sizes
        return cls(shard_begins[shard_of_chunk] + low, high - low)

    @property
    def num_samples(self) -> int:
        """Samples in all chunks."""
        return int(self.count.sum())


@dataclass(frozen=True)
class Order:
    """The order of one split for a global batch size; epochs are drawn from it.

    Args:
        chunks: of the split.
        global_batch_size: samples that every step takes from this split.
        samples_per_block: samples of a lane that are shuffled among each other.
        seed: of the order; different for streams that must not move together.
    """

    chunks: Chunks
    global_batch_size: int
    samples_per_block: int
    seed: tuple[int, ...]

    @cached_property
    def lanes(self) -> int:
        """Number of lanes."""
        return num_lanes(self.global_batch_size)

    @property
    def samples_per_lane_step(self) -> int:
        """Samples that a step takes from each lane."""
        return self.global_batch_size // self.lanes

    @cached_property
    def num_steps_per_epoch(self) -> int:
        """Whole global batches in the split."""
        return self.chunks.num_samples // self.global_batch_size

    @property
    def lane_length(self) -> int:
        """Samples of a lane in an epoch."""
        return self.num_steps_per_epoch * self.samples_per_lane_step

    def epoch(self, epoch: int) -> EpochOrder:
        """The order of one epoch; O(number of chunks)."""
        permutation = generator(ORDER, *self.seed, epoch).permutation(len(self.chunks.first))
        ends = np.cumsum(self.chunks.count[permutation])
        return EpochOrder(self, epoch, self.chunks.first[permutation], ends - self.chunks.count[permutation])

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, step within it) of the run's step, counted from 0."""
        return divmod(step, self.num_steps_per_epoch)


@dataclass(frozen=True)
class EpochOrder:
    """One epoch's sequence, read lane by lane and block by block."""

    order: Order
    epoch: int
    first: np.ndarray
    """(M,) position of the first sample of the m-th chunk of the sequence."""
    begin: np.ndarray
    """(M,) where that chunk begins in the sequence."""

    def blocks(self, lane: int, start: int = 0) -> Iterator[tuple[np.ndarray, int]]:
        """The lane's shuffled blocks from the one that holds its `start`-th sample on.

        Yields (positions in the split, how many of them come before `start`).
        """
        length, size = self.order.lane_length, self.order.samples_per_block
        # Blocks end at first + k size: staggered over the lanes, none smaller than half a block (but for tiny data).
        first = size - size // 2 * lane // self.order.lanes
        last = max(0, (length - first + size // 2) // size)
        number = 0 if start < first else min(last, 1 + (start - first) // size)
        for k in range(number, last + 1):
            low = 0 if k == 0 else first + (k - 1) * size
            high = length if k == last else first + k * size
            positions = self._positions(lane * length + low, lane * length + high)
            shuffle = generator(BLOCK, *self.order.seed, self.epoch, lane, k).permutation(high - low)
            yield positions[shuffle], max(0, start - low)

    def batch(self, step: int, lanes: range | None = None) -> np.ndarray:
        """Positions of the samples of a step of this epoch, lane after lane: what the streams deliver, without them."""
        per_step = self.order.samples_per_lane_step
        taken = []
        for lane in lanes if lanes is not None else range(self.order.lanes):
            wanted, got = per_step, []
            for positions, skip in self.blocks(lane, step * per_step):
                got.append(positions[skip : skip + wanted])
                wanted -= len(got[-1])
                if not wanted:
                    break
            taken.extend(got)
        return np.concatenate(taken)

    def _positions(self, low: int, high: int) -> np.ndarray:
        """Positions in the split of places low..high of the sequence."""
        places = np.arange(low, high)
        chunk = np.searchsorted(self.begin, places, side="right") - 1
        return self.first[chunk] + places - self.begin[chunk]


def evaluation_share(num_samples: int, rank: int, world_size: int) -> range:
    """The positions that a rank evaluates: consecutive ones, every position on exactly one rank."""
    return range(rank * num_samples // world_size, (rank + 1) * num_samples // world_size)
