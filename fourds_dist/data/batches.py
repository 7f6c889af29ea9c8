"""Decoding: threads turn drawn samples into batches of pixels, a few batches ahead of training.

Threads and not processes: the decoders let other threads run, and a batch needs no copy from process to process (see
`python -m fourds_dist.benchmark data` for both). A feeding thread draws the samples of each batch in order, the pool
decodes them into the batch's memory, which is pinned where there is a GPU.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.batch import Batch
from fourds_dist.data.decode import decode
from fourds_dist.data.fetch import DataError
from fourds_dist.data.lanes import Draw
from fourds_dist.data.samples import Quarantine, Sample
from fourds_dist.data.threads import Pool, num_cores

IMAGES_PER_TASK = 8
"""Images that a thread decodes before it takes up other work."""


@dataclass(frozen=True)
class Plan:
    """What a batch is to hold.

    Args:
        draws: the samples.
        places: (B, 2) where each crop is taken, see `decode`.
        flip, from_source: (B,) see `Batch`.
        quarantines: (B,) where each sample's stream notes what is broken.
        may_replace: whether a neighbour stands in for a broken sample (training); otherwise it is left out.
    """

    draws: Sequence[Draw]
    places: np.ndarray
    flip: np.ndarray
    from_source: np.ndarray
    quarantines: Sequence[Quarantine]
    may_replace: bool


def num_threads(world_size: int) -> int:
    """Decoding threads of a rank where the configuration gives none: its share of the node's cores."""
    ranks_of_node = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # set by torchrun and by Ray Train
    return max(1, int(num_cores() / ranks_of_node))


def decoding_pool(threads: int) -> Pool:
    """Threads in which PyTorch opens none of its own.

    `torch.set_num_threads` holds for the calling thread, but new threads (autograd's, say) take the number that was
    set last in any of them, and so does a main thread that has not computed yet: the caller's is set again.
    """
    own = torch.get_num_threads()
    pool = Pool(threads, "decode", begin=_one_thread)
    torch.set_num_threads(own)
    return pool


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # asked once, the thread keeps its number when another one sets another


def decoded(
    plans: Iterator[Plan],
    *,
    resize_px: int,
    crop_px: int,
    threads: int,
    prefetch: int,
    waiting: Callable[[Callable[[], Batch | None]], Batch | None] = lambda get: get(),
    check: Callable[[], None] = lambda: None,
) -> Generator[Batch, None, None]:
    """The plans' batches, in order; at most `prefetch` are being made at a time. Closing it ends the threads.

    Args:
        waiting: calls the function it is given, which waits for a batch; the place to measure.
        check: called every second while none is ready; raises where waiting has become vain.

    Raises:
        DataError: what reading or decoding raised.
    """
    ready: queue.Queue[_Pending | BaseException | None] = queue.Queue(prefetch)
    stopped = threading.Event()
    pool = decoding_pool(threads)

    def put(item: _Pending | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def feed() -> None:
        try:
            for plan in plans:
                if stopped.is_set():
                    return
                put(_Pending(plan, pool, resize_px, crop_px))
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=feed, name="feed", daemon=True)
    thread.start()

    def next_batch() -> Batch | None:
        while True:
            with suppress(queue.Empty):
                item = ready.get(timeout=1.0)
                break
            check()
        if isinstance(item, BaseException):
            raise item
        return None if item is None else item.batch()

    try:
        while (batch := waiting(next_batch)) is not None:
            yield batch
            del batch  # its memory belongs to the caller alone while the next one is waited for
    finally:
        stopped.set()
        pool.close()
        thread.join(timeout=5)


class _Pending:
    """A batch whose images are being decoded."""

    def __init__(self, plan: Plan, pool: Pool, resize_px: int, crop_px: int) -> None:
        self._plan = plan
        shape = (len(plan.draws), crop_px, crop_px, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        self._images = pixels.permute(0, 3, 1, 2)

        def work(begin: int) -> list[Sample | None]:
            return [
                _fill(self._images[i], plan, i, resize_px, crop_px)
                for i in range(begin, min(begin + IMAGES_PER_TASK, len(plan.draws)))
            ]

        starts = range(0, len(plan.draws), IMAGES_PER_TASK)
        self._tasks: list[Future[list[Sample | None]]] = [pool.submit(work, begin) for begin in starts]

    def batch(self) -> Batch:
        """Wait for the images."""
        samples = [sample for task in self._tasks for sample in task.result()]
        plan, images = self._plan, self._images
        kept = [i for i, sample in enumerate(samples) if sample is not None]
        flip, from_source = torch.from_numpy(plan.flip), torch.from_numpy(plan.from_source)
        if len(kept) < len(samples):
            images, flip, from_source = images[kept], flip[kept], from_source[kept]
        whole = [sample for sample in samples if sample is not None]
        labels = torch.tensor([sample.label for sample in whole], dtype=torch.int64)
        if images.is_pinned():
            labels, flip, from_source = (x.pin_memory() for x in (labels, flip, from_source))
        return Batch(images, labels, flip, from_source, [sample.key for sample in whole])


def _fill(out_CHW: Tensor, plan: Plan, i: int, resize_px: int, crop_px: int) -> Sample | None:
    """Decode one image into the batch; the sample that is shown, or None where it is broken and left out.

    A broken one is replaced by the next good one of its block: blocks do not depend on the number of workers, and so
    neither does what is shown.
    """
    block, at = plan.draws[i].block, plan.draws[i].at
    for step in range(len(block) if plan.may_replace else 1):
        sample = block[(at + step) % len(block)]
        if isinstance(sample, Sample):
            if step and sample.key in plan.quarantines[i]:
                continue
            try:
                place = (float(plan.places[i, 0]), float(plan.places[i, 1]))
                out_CHW.copy_(decode(sample.data, resize_px=resize_px, crop_px=crop_px, place=place))
            except ValueError as error:
                plan.quarantines[i].add(sample.key, f"not a readable image: {error}")
            else:
                return sample
        else:
            plan.quarantines[i].add(*sample)
    if plan.may_replace:
        first = block[at]
        raise DataError(
            f"{first.key if isinstance(first, Sample) else first[0]}: not one image of its block is good"
        )
    return None
