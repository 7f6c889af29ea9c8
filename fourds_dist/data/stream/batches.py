"""Decoding: threads decode samples into batches of pixels, a few batches ahead of training.

A feeding thread takes the samples of each batch in order. A pool of threads decodes them into the batch's memory, which
is pinned if there is a GPU. With many threads, each thread delegates its work to a process. Images in `decoded_cache`
or `decoded_disk_cache` are not decoded again.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.augment.draws import Draws
from fourds_dist.data.decode.crop_box import Place
from fourds_dist.data.decode.threads import num_cores
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.decoder import DecodeOptions, Decoder, Row, ShownSample, decoding_pool
from fourds_dist.data.stream.quarantine import Quarantine
from fourds_dist.data.stream.samples import Block, BrokenSample

MOST_THREADS = 4
"""Largest number of threads to which decoding in threads scales; see `processes` for more."""


@dataclass(frozen=True)
class BatchPlan:
    """Samples of a batch and their augmentation.

    Args:
        refs: (B,) the samples, each as its block and its index there, so that a neighbour can replace a broken sample.
        places: (B, 2 or more) place of each crop, see `crop_box`.
        flip: (B,) see `Batch`.
        quarantines: (B,) quarantine of each sample's stream.
        may_replace: whether a neighbour replaces a broken sample (training) or the sample is left out (evaluation).
        draws: augmentation of the batch on its device, only with may_replace; None: none.
        num_source: see `Batch`; only with may_replace, as no sample is left out then.
    """

    refs: Sequence[tuple[Block, int]]
    places: np.ndarray
    flip: np.ndarray
    quarantines: Sequence[Quarantine]
    may_replace: bool
    draws: Draws | None = None
    num_source: int = 0


def num_threads(world_size: int) -> int:
    """Return the default number of decoding threads of a rank: its share of the node's cores."""
    ranks_of_node = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # set by torchrun and by Ray Train
    return max(1, int(num_cores() / ranks_of_node))


def decoded(
    plans: Iterator[BatchPlan],
    options: DecodeOptions,
    *,
    waiting: Callable[[Callable[[], Batch | None]], Batch | None] = lambda get: get(),
    check: Callable[[], None] = lambda: None,
) -> Generator[Batch, None, None]:
    """Yield the plans' batches in order; closing the generator ends the threads.

    Args:
        waiting: calls the given function, which waits for a batch; the caller can measure the time here.
        check: called every second while no batch is ready; raises if no batch can come any more.

    Raises:
        DataError: reading or decoding failed.
    """
    ready: queue.Queue[Callable[[], Batch] | BaseException | None] = queue.Queue(options.prefetch)
    stopped = threading.Event()
    pool = decoding_pool(options.threads)
    decoder = Decoder(options, pool)

    def put(item: Callable[[], Batch] | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def feed() -> None:
        try:
            for plan in plans:
                if stopped.is_set():
                    return
                put(_start(plan, decoder))
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
        return None if item is None else item()

    try:
        while (batch := waiting(next_batch)) is not None:
            yield batch
            del (
                batch
            )  # only the caller holds the batch's memory while this generator waits for the next batch
    finally:
        stopped.set()
        decoder.close()
        pool.close()
        thread.join(timeout=5)


def _start(plan: BatchPlan, decoder: Decoder) -> Callable[[], Batch]:
    """Start to decode a batch; the function that is returned waits for the images."""
    num_images = len(plan.refs)
    images, rows = decoder.memory(num_images)
    size = decoder.images_per_task or num_images
    tasks = [
        decoder.pool.submit(_fill, rows, plan, range(begin, min(begin + size, num_images)), decoder)
        for begin in range(0, num_images, size)
    ]
    return partial(_finish, plan, images, tasks)


def _finish(plan: BatchPlan, images: Tensor, tasks: list[Future[list[ShownSample | None]]]) -> Batch:
    """Wait for the images and return the batch, without the images that are left out."""
    samples = [sample for task in tasks for sample in task.result()]
    good = {i: sample for i, sample in enumerate(samples) if sample is not None}
    flip = torch.from_numpy(plan.flip)
    if len(good) < len(samples):
        shown = list(good)
        images, flip = images[shown], flip[shown]
    labels = torch.tensor([sample.label for sample in good.values()], dtype=torch.int64)
    batch = Batch(images, labels, flip, [sample.key for sample in good.values()], plan.draws, plan.num_source)
    if images.is_cuda or images.is_pinned():
        return batch.mapped(lambda x: x if x.is_cuda or x.is_pinned() else x.pin_memory())
    return batch


def _fill(rows: Sequence[Row], plan: BatchPlan, indices: range, decoder: Decoder) -> list[ShownSample | None]:
    """Decode some images into the batch; return the samples shown, None for a broken sample that is left out."""
    shown: dict[int, ShownSample | None] = {}
    drawn = {i: block[at] for i in indices for block, at in [plan.refs[i]]}
    good = {i: sample for i, sample in drawn.items() if not isinstance(sample, BrokenSample)}
    messages = decoder(list(good.values()), [_place(plan, i) for i in good], [rows[i] for i in good])
    for (i, sample), message in zip(good.items(), messages, strict=True):
        if message is None:
            shown[i] = sample
        else:
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    for i, sample in drawn.items():
        if isinstance(sample, BrokenSample):
            plan.quarantines[i].add(*sample)
        if i not in shown:
            shown[i] = _decode_replacement(rows[i], plan, i, decoder) if plan.may_replace else None
    return [shown[i] for i in indices]


def _decode_replacement(out_HWC: Row, plan: BatchPlan, i: int, decoder: Decoder) -> ShownSample:
    """Decode the next good image of the block in place of a broken one.

    Blocks do not depend on the number of workers, so the replacement does not either.
    """
    block, at = plan.refs[i]
    for step in range(1, len(block)):
        sample = block[(at + step) % len(block)]
        if isinstance(sample, BrokenSample):
            plan.quarantines[i].add(*sample)
        elif sample.key not in plan.quarantines[i]:
            (message,) = decoder([sample], [_place(plan, i)], [out_HWC])
            if message is None:
                return sample
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    raise plan.quarantines[i].error(f"{block[at].key}: all images of its block are broken")


def _place(plan: BatchPlan, i: int) -> Place:
    return tuple(plan.places[i].tolist())
