"""Lanes as they are read: every lane holds one shuffled block of encoded samples and asks for the next in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fourds_dist.data.order import EpochOrder, Order
from fourds_dist.data.samples import Sample

Block = list[Sample | tuple[str, str]]
"""Samples in shuffled order; (key, cause) where one is broken."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample's place in its block, so that a neighbour can stand in for a broken one."""

    block: Block
    at: int


class Lane:
    """One lane of one split, from a step of the run on, epoch after epoch.

    Args:
        epoch_of: the order of an epoch, by its number.
        submit: starts reading the samples at some positions.
    """

    def __init__(
        self,
        order: Order,
        lane: int,
        step: int,
        epoch_of: Callable[[int], EpochOrder],
        submit: Callable[[np.ndarray], Future[Block]],
    ) -> None:
        self._order = order
        self._blocks = self._all_blocks(lane, step, epoch_of)
        self._submit = submit
        self._block: Block = []
        self._at = 0
        self._next: tuple[Future[Block], int] | None = self._ask()

    def take(self, count: int) -> list[Draw]:
        """The next `count` samples; waits for a block that is still being read."""
        drawn: list[Draw] = []
        while len(drawn) < count:
            if self._at == len(self._block):
                future, skip = self._next or self._ask()
                self._block, self._at, self._next = future.result(), skip, None
            stop = min(len(self._block), self._at + count - len(drawn))
            drawn += [Draw(self._block, at) for at in range(self._at, stop)]
            self._at = stop
            if self._next is None and 2 * self._at >= len(self._block):
                self._next = self._ask()
        return drawn

    def _ask(self) -> tuple[Future[Block], int]:
        positions, skip = next(self._blocks)
        return self._submit(positions), skip

    def _all_blocks(
        self, lane: int, step: int, epoch_of: Callable[[int], EpochOrder]
    ) -> Iterator[tuple[np.ndarray, int]]:
        epoch, step_of_epoch = self._order.place(step)
        start = step_of_epoch * self._order.samples_per_lane_step
        while True:
            yield from epoch_of(epoch).blocks(lane, start)
            epoch, start = epoch + 1, 0


def epochs_of(order: Order) -> Callable[[int], EpochOrder]:
    """`order.epoch`, remembering the last two: lanes of one rank are seldom further apart."""
    return lru_cache(maxsize=2)(order.epoch)
