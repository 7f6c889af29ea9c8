"""A partition is read in blocks, from any step on and over the ends of epochs, one block ahead."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest

from fourds_dist.data.stream.order import Chunks, Order
from fourds_dist.data.stream.partition_reader import PartitionReader, epochs_of
from fourds_dist.data.stream.samples import Block, BrokenSample

ORDER = Order(Chunks.cut(np.array([7, 12, 5, 16]), 4), global_batch_size=4, samples_per_block=3, seed=(1,))


class Reads:
    """Blocks of samples with their position as key, which are there at once."""

    def __init__(self) -> None:
        self.positions: list[list[int]] = []

    def __call__(self, positions: np.ndarray) -> Future[Block]:
        self.positions.append(positions.tolist())
        future: Future[Block] = Future()
        future.set_result([BrokenSample(str(n), "") for n in positions])
        return future


def taken(reader: PartitionReader, count: int) -> list[int]:
    return [int(ref.block[ref.at].key) for ref in reader.take(count)]


@pytest.mark.parametrize("partition", range(4))
@pytest.mark.parametrize("step", [0, 4, 9, 10, 23])
def test_samples_are_those_of_the_order_from_any_step_on(partition: int, step: int) -> None:
    assert (ORDER.partitions, ORDER.num_steps_per_epoch) == (4, 10)
    reader = PartitionReader(ORDER, partition, step, epochs_of(ORDER), Reads())
    expected = []
    for at in range(step, step + 25):
        epoch, step_of_epoch = ORDER.place(at)
        expected.append(int(ORDER.epoch(epoch).batch(step_of_epoch, range(partition, partition + 1))[0]))
    assert taken(reader, 1) + taken(reader, 7) + taken(reader, 0) + taken(reader, 17) == expected


def test_the_next_block_is_read_once_half_of_this_one_is_taken() -> None:
    reads = Reads()
    reader = PartitionReader(ORDER, 0, 0, epochs_of(ORDER), reads)
    assert [len(block) for block in reads.positions] == [3]
    counts = []
    for _ in range(6):
        reader.take(1)
        counts.append(len(reads.positions))
    assert counts == [1, 2, 2, 2, 3, 3]


def test_the_order_of_an_epoch_is_made_once() -> None:
    epoch_of = epochs_of(ORDER)
    first = epoch_of(0)
    assert epoch_of(1) is epoch_of(1)
    assert epoch_of(0) is first
    assert epoch_of(2).epoch == 2
