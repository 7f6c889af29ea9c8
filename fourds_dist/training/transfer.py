"""Batches to the device while it works on the one before.

    for batch in on_device(stream.batches(step), device):
        train_step(batch)

A batch is copied from page-locked memory on a stream of its own, one step ahead: it is there when its step starts, also
right after a step at whose end the host waited for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from fourds_dist.data.batch import Batch

T = TypeVar("T")
R = TypeVar("R")

TENSORS = ("images", "labels", "flip", "from_source")


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches, in order, on `device`; on a CPU they are passed on as they come.

    On a GPU one batch more than asked for is taken from `batches`. Only the copies are made here: the time that
    `batches` takes for the next one is its own affair.
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
        for name in TENSORS:
            getattr(batch, name).record_stream(consumer)
        yield batch


def one_ahead(items: Iterable[T], start: Callable[[T], R]) -> Iterator[R]:
    """`start` of every item, in order, called for each before the result of the item ahead of it is handed out."""
    waiting: list[R] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def page_locked(batch: Batch) -> Batch:
    """The batch in memory that a device can read by itself; what is there already, or on a device, stays."""
    tensors = {name: getattr(batch, name) for name in TENSORS}
    locked = {name: x if x.is_cuda or x.is_pinned() else x.pin_memory() for name, x in tensors.items()}
    return replace(batch, **locked)
