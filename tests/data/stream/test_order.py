"""The order: a permutation, the same for any number of ranks, drawn anew each epoch, and well mixed."""

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.data.stream.order import (
    Chunks,
    Order,
    PartitionReader,
    epochs_of,
    evaluation_share,
    num_partitions,
    partitions_of,
)
from fourds_dist.data.stream.samples import Block, BrokenSample

SHARDS = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def order(sizes, global_batch_size=12, samples_per_chunk=5, samples_per_block=10, seed=(0,)) -> Order:
    return Order(Chunks.cut(np.array(sizes), samples_per_chunk), global_batch_size, samples_per_block, seed)


def whole_epoch(o: Order, epoch: int = 0) -> np.ndarray:
    e = o.epoch(epoch)
    return np.concatenate([e.batch(step) for step in range(o.num_steps_per_epoch)])


@given(SHARDS, st.integers(1, 70))
def test_chunks_hold_every_sample_once_and_cross_no_shard(sizes, samples_per_chunk):
    chunks = Chunks.cut(np.array(sizes), samples_per_chunk)
    held = np.concatenate([np.arange(f, f + c) for f, c in zip(chunks.first, chunks.count, strict=True)])
    assert held.tolist() == list(range(sum(sizes)))
    assert chunks.count.min() >= 1
    assert chunks.count.max() <= samples_per_chunk
    edges = np.cumsum(sizes)
    shard_of_first = np.searchsorted(edges, chunks.first, side="right")
    shard_of_last = np.searchsorted(edges, chunks.first + chunks.count - 1, side="right")
    assert (shard_of_first == shard_of_last).all()


@given(SHARDS, st.sampled_from([1, 4, 6, 13]), st.integers(1, 9), st.integers(1, 25), st.integers(0, 3))
def test_an_epoch_shows_no_sample_twice_and_all_but_less_than_a_batch(
    sizes, global_batch_size, samples_per_chunk, samples_per_block, epoch
):
    o = order(sizes, global_batch_size, samples_per_chunk, samples_per_block)
    if o.num_steps_per_epoch == 0:
        return
    shown = whole_epoch(o, epoch)
    assert len(shown) == len(set(shown.tolist())) == sum(sizes) // global_batch_size * global_batch_size
    assert 0 <= shown.min() <= shown.max() < sum(sizes)


@given(st.integers(1, 16), st.integers(0, 5))
def test_any_number_of_ranks_makes_the_same_global_batches(world_size, step):
    o = order([40, 3, 57], global_batch_size=16)
    e = o.epoch(1)
    parts = [e.batch(step, partitions_of(rank, world_size, o.partitions)) for rank in range(world_size)]
    assert np.concatenate(parts).tolist() == e.batch(step).tolist()


@given(st.lists(st.integers(1, 16), min_size=6, max_size=6))
def test_ranks_that_come_and_go_show_each_sample_once(world_sizes):
    o = order([40, 3, 57], global_batch_size=16)
    shown = [
        o.epoch(0).batch(step, partitions_of(rank, world_size, o.partitions))
        for step, world_size in enumerate(world_sizes)
        for rank in range(world_size)
    ]
    assert sorted(np.concatenate(shown).tolist()) == sorted(whole_epoch(o).tolist())


def test_epochs_and_seeds_differ_and_repeat():
    o, other = order([100]), order([100], seed=(1,))
    assert whole_epoch(o, 0).tolist() == whole_epoch(order([100]), 0).tolist()
    assert whole_epoch(o, 0).tolist() != whole_epoch(o, 1).tolist()
    assert whole_epoch(o, 0).tolist() != whole_epoch(other, 0).tolist()
    # A sum of seed and epoch would give these two the same order.
    assert whole_epoch(o, 1).tolist() != whole_epoch(other, 0).tolist()


def test_the_partitions_divide_the_global_batch():
    assert [num_partitions(g) for g in (1, 32, 96, 127, 128, 256, 384, 1000)] == [
        1,
        32,
        96,
        127,
        128,
        128,
        128,
        125,
    ]


def test_more_workers_than_partitions_are_refused():
    with pytest.raises(ValueError, match="multiple of 5, or fewer workers"):
        partitions_of(0, 5, 4)


def test_neighbours_of_the_data_end_far_apart():
    """10,000 samples in shards of 1,000: two neighbours come about as far apart as in a full shuffle (a third)."""
    o = order([1000] * 10, global_batch_size=64, samples_per_chunk=20, samples_per_block=40)
    shown = whole_epoch(o)
    place = np.full(10_000, np.nan)
    place[shown] = np.arange(len(shown))
    distance = np.abs(np.diff(place))
    # Neighbours within a chunk share a block, hence come within a block's time; those of two chunks do not.
    within_block = 40 * 64
    assert np.nanmedian(distance) < within_block
    firsts = place[::1000]
    assert np.nanstd(firsts) > 1500  # beginnings of shards are spread over the epoch
    batch = shown[: 64 * 20].reshape(20, 64)
    shards_in_batch = [len(set((b // 1000).tolist())) for b in batch]
    assert min(shards_in_batch) >= 8  # a batch draws from nearly all shards


@given(st.integers(0, 100), st.integers(1, 17))
def test_evaluation_gives_every_position_to_one_rank(num_samples, world_size):
    shares = [evaluation_share(num_samples, rank, world_size) for rank in range(world_size)]
    assert [p for share in shares for p in share] == list(range(num_samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_documented_figures_of_mixing():
    """100,000 images in sorted shards of 1,000, 60 kB each, batches of 256, shuffle_mib=256: the table of `order`."""
    num, shard, num_classes, batch_size = 100_000, 1000, 1000, 256
    o = order([shard] * (num // shard), batch_size, samples_per_chunk=17, samples_per_block=34)
    epochs = [whole_epoch_by_lanes(o, epoch) for epoch in range(2)]
    steps = [np.full(num, -1) for _ in epochs]
    for step, epoch in zip(steps, epochs, strict=True):
        step[epoch] = np.arange(len(epoch))[:, None]
    looked_at = epochs[0][::3]
    shards = np.mean([len(np.unique(batch // shard)) for batch in looked_at])
    classes = np.mean([len(np.unique(batch * num_classes // num)) for batch in looked_at])
    shown = (steps[0][:-1] >= 0) & (steps[0][1:] >= 0)
    apart = np.abs(np.diff(steps[0]))[shown].mean() / o.num_steps_per_epoch
    assert shards == pytest.approx(88, abs=1)
    assert classes == pytest.approx(193, abs=2)
    assert apart == pytest.approx(0.036, abs=0.003)
    met, pairs = 0.0, 0.0
    for batch in looked_at:
        again = steps[1][batch]
        again = again[again >= 0]
        _, together = np.unique(again, return_counts=True)
        met += (together * (together - 1) / 2).sum()
        pairs += len(again) * (len(again) - 1) / 2
    assert met / pairs * o.num_steps_per_epoch == pytest.approx(1.0, abs=0.15)


def whole_epoch_by_lanes(o: Order, epoch: int) -> np.ndarray:
    """(steps, global batch): the same as `batch` for every step, and faster."""
    e = o.epoch(epoch)
    partitions = [
        np.concatenate([positions for positions, _ in e.blocks(partition)])
        for partition in range(o.partitions)
    ]
    return np.stack(
        [partition.reshape(-1, o.samples_per_partition_step) for partition in partitions], axis=1
    ).reshape(-1, o.global_batch_size)


def test_the_faster_way_to_an_epoch_is_the_same():
    o = order([40, 3, 57], global_batch_size=16)
    assert whole_epoch_by_lanes(o, 1).reshape(-1).tolist() == whole_epoch(o, 1).tolist()


# Partitions are read in blocks, from any step on and over the ends of epochs, one block ahead.
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
    return [int(block[at].key) for block, at in reader.take(count)]


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
