"""Reading of partitions: every partition holds one shuffled block of encoded samples and reads the next block ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fourds_dist.data.stream.order import EpochOrder, Order
from fourds_dist.data.stream.samples import Block


@dataclass(frozen=True, slots=True)
class SampleRef:
    """A sample's index in its block, so that a neighbour can replace a broken sample."""

    block: Block
    at: int


class PartitionReader:
    """One partition of one split, from a step of the run on, epoch after epoch.

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
        submit: Callable[[np.ndarray], Future[Block]],
    ) -> None:
        self._blocks = _all_blocks(order, partition, step, epoch_of)
        self._submit = submit
        self._block: Block = []
        self._at = 0
        self._next: tuple[Future[Block], int] | None = self._submit_next()

    def take(self, count: int) -> list[SampleRef]:
        """Return the next `count` samples; wait for a block that is still being read."""
        drawn: list[SampleRef] = []
        while len(drawn) < count:
            if self._at == len(self._block):
                future, skip = self._next or self._submit_next()
                self._block, self._at, self._next = future.result(), skip, None
            stop = min(len(self._block), self._at + count - len(drawn))
            drawn += [SampleRef(self._block, at) for at in range(self._at, stop)]
            self._at = stop
            if self._next is None and 2 * self._at >= len(self._block):
                self._next = self._submit_next()
        return drawn

    def _submit_next(self) -> tuple[Future[Block], int]:
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
