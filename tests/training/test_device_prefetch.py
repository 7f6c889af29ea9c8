"""Batches on their way to the device: in order, one ahead, unchanged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fourds_dist.data.stream.batch import TENSORS, Batch
from fourds_dist.training.device_prefetch import one_ahead, prefetch_to_device
from tests.training.test_step import make_batch


def test_a_cpu_takes_batches_as_they_come() -> None:
    batches = [make_batch(2, seed) for seed in range(3)]
    taken = []

    def source() -> Iterator[Batch]:
        for batch in batches:
            taken.append(batch)
            yield batch

    arriving = prefetch_to_device(source(), torch.device("cpu"))
    assert next(arriving) is batches[0]
    assert len(taken) == 1
    assert list(arriving) == batches[1:]


@pytest.mark.parametrize("num_items", [0, 1, 2, 5])
def test_one_is_started_before_the_one_ahead_is_handed_out(num_items: int) -> None:
    started = []

    def start(item: int) -> int:
        started.append(item)
        return 10 * item

    for position, result in enumerate(one_ahead(range(num_items), start)):
        assert result == 10 * position
        assert len(started) == min(position + 2, num_items)
    assert started == list(range(num_items))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_copies_arrive_whole_while_the_device_is_busy() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    batches = [make_batch(64, seed) for seed in range(6)]
    busy = torch.randn(4096, 4096, device=device)
    sums, arrived = [], []
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in prefetch_to_device(batches, device):
            busy = (busy @ busy).tanh()  # the consumer is behind when the next copy is made
            sums.append(batch.images.long().sum() + (0 * busy.sum()).long())
            arrived.append(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [int(s) for s in sums] == [int(b.images.long().sum()) for b in batches]
    for got, sent in zip(arrived, batches, strict=True):
        assert all(getattr(got, name).device == device for name in TENSORS)
        assert all(torch.equal(getattr(got, name).cpu(), getattr(sent, name)) for name in TENSORS)
        assert got.keys == sent.keys


@pytest.mark.gpu
def test_memory_of_a_batch_is_not_given_away_while_the_device_reads_it() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    busy = torch.randn(4096, 4096, device=device)
    sums = []
    for batch in prefetch_to_device((make_batch(64, seed) for seed in range(8)), device):
        busy = (busy @ busy).tanh()
        sums.append(batch.images.long().sum() + (0 * busy.sum()).long())
    assert [int(s) for s in sums] == [int(make_batch(64, s).images.long().sum()) for s in range(8)]
