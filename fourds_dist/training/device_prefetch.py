"""Prefetch of batches to the device during the previous step.

    for batch in prefetch_to_device(stream.batches(step), device):
        train_step(batch)

A separate CUDA stream copies each batch from page-locked memory, one step ahead. The copy is complete when its step
starts, even if the host waited for the device at the end of the previous step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from fourds_dist.data.stream.batch import Batch

T = TypeVar("T")
R = TypeVar("R")


def prefetch_to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the same batches, in order, on `device`; on a CPU they are yielded unchanged.

    On a GPU this reads one batch of `batches` ahead. Reading from `batches` itself is not asynchronous.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies = torch.cuda.Stream(device)

    def start(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        arrived = torch.cuda.Event()
        with torch.cuda.stream(copies):
            copy = page_locked(batch).to(device)
            arrived.record(copies)
        return copy, arrived

    for batch, arrived in one_ahead(batches, start):
        consumer = torch.cuda.current_stream(device)
        consumer.wait_event(arrived)  # the device waits, not the host
        batch.mapped(partial(_record, stream=consumer))
        yield batch


def one_ahead(items: Iterable[T], start: Callable[[T], R]) -> Iterator[R]:
    """Yield `start(item)` of every item, in order, after the call for the next item."""
    waiting: list[R] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def page_locked(batch: Batch) -> Batch:
    """Return the batch in page-locked memory; tensors that are page-locked or on a device are not copied."""
    return batch.mapped(lambda x: x if x.is_cuda or x.is_pinned() else x.pin_memory())


def _record(tensor: Tensor, *, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
