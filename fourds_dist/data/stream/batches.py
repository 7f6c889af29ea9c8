"""Decoding: threads decode samples into batches of pixels, a few batches ahead of training.

A feeding thread takes the samples of each batch in order. A pool of threads decodes them into the batch's memory, which
is pinned if there is a GPU. With many threads, each thread delegates its work to a process. Images in `decoded_cache`
are not decoded again.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.augment.draws import Draws
from fourds_dist.data.decode.crop_box import Place, ResizeMode
from fourds_dist.data.decode.decode import IMAGES_PER_TASK, Encoded, Sizes, crop_resized, decode_into
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.processes import decode_processes
from fourds_dist.data.decode.threads import Pool, num_cores
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.partition_reader import SampleRef
from fourds_dist.data.stream.samples import BrokenSample, EncodedSample, Quarantine

if TYPE_CHECKING:
    from fourds_dist.data.decode.gpu import GpuDecoder

MOST_THREADS = 4
"""Largest number of threads to which decoding in threads scales; see `processes` for more."""


@dataclass(frozen=True)
class DecodeOptions:
    """Decoding options of a rank.

    Args:
        resize_px, crop_px, resize_mode: see `decode`.
        threads: number of decoding threads.
        in_processes: whether each thread delegates decoding to a separate process.
        prefetch: number of batches that are decoded at a time.
        grey_range: range of all images of more than 8 bits; None: the range of each data set.
        most_pixels: images of more pixels are refused; None: `pixels.MOST_PIXELS`.
        gpu: GPU whose JPEG engine decodes, into batches on this device; None: all images are decoded on the CPU.
    """

    resize_px: int
    crop_px: int
    threads: int
    in_processes: bool
    prefetch: int
    grey_range: GreyRange | None = None
    most_pixels: int | None = None
    resize_mode: ResizeMode = "squeeze"
    gpu: torch.device | None = None


@dataclass(frozen=True)
class BatchPlan:
    """Samples of a batch and their augmentation.

    Args:
        refs: (B,) the samples.
        places: (B, 2 or more) place of each crop, see `crop_box`.
        flip: (B,) see `Batch`.
        quarantines: (B,) quarantine of each sample's stream.
        may_replace: whether a neighbour replaces a broken sample (training) or the sample is left out (evaluation).
        draws: augmentation of the batch on its device, only with may_replace; None: none.
    """

    refs: Sequence[SampleRef]
    places: np.ndarray
    flip: np.ndarray
    quarantines: Sequence[Quarantine]
    may_replace: bool
    draws: Draws | None = None


def num_threads(world_size: int) -> int:
    """Return the default number of decoding threads of a rank: its share of the node's cores."""
    ranks_of_node = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # set by torchrun and by Ray Train
    return max(1, int(num_cores() / ranks_of_node))


def decoding_pool(threads: int) -> Pool:
    """Return a pool of threads in which PyTorch computes with one thread each.

    `torch.set_num_threads` applies to the calling thread. New threads (such as autograd's), and a main thread that has
    not computed yet, take the number that any thread set last; so the caller's number is set again.
    """
    num_threads_of_caller = torch.get_num_threads()
    pool = Pool(threads, "decode", begin=_one_thread)
    torch.set_num_threads(num_threads_of_caller)
    return pool


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # after this call, the thread's number no longer changes when another thread sets its own


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
    ready: queue.Queue[_Pending | BaseException | None] = queue.Queue(options.prefetch)
    stopped = threading.Event()
    pool = decoding_pool(options.threads)
    decoder = _Decoder(options, pool)

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
                put(_Pending(plan, decoder))
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
            del (
                batch
            )  # only the caller holds the batch's memory while this generator waits for the next batch
    finally:
        stopped.set()
        decoder.close()
        pool.close()
        thread.join(timeout=5)


class _Decoder:
    """Writes crops of samples into tensors; returns an error message per sample, None if the sample is good."""

    def __init__(self, options: DecodeOptions, pool: Pool) -> None:
        self.crop_px = options.crop_px
        self.pool = pool
        self.images_per_task: int | None = IMAGES_PER_TASK
        self._sizes = Sizes(options.resize_px, options.crop_px, options.most_pixels, options.resize_mode)
        self._decode = decode_processes(options.threads) if options.in_processes else decode_into
        self._options = options
        self._gpu: GpuDecoder | None = None
        if options.gpu is not None:
            from fourds_dist.data.decode.gpu import GpuDecoder

            self._decode = self._gpu = GpuDecoder(options.gpu, self._decode, pool)
            self.pool, self.images_per_task = decoding_pool(1), None  # a whole batch per task

    def close(self) -> None:
        """End the thread that waits for the GPU; the caller closes its own pool."""
        if self._gpu:
            self.pool.close()

    def empty(self, num_images: int) -> Tensor:
        """Return memory for a batch, (B, 3, crop_px, crop_px) uint8 in channels-last order: on the GPU, or pinned."""
        shape = (num_images, self.crop_px, self.crop_px, 3)
        if self._gpu:
            with torch.cuda.stream(self._gpu.stream):
                pixels = torch.empty(shape, dtype=torch.uint8, device=self._gpu.device)
        else:
            pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        return pixels.permute(0, 3, 1, 2)

    def __call__(
        self, samples: Sequence[EncodedSample], places: Sequence[Place], out: Sequence[Tensor]
    ) -> list[str | None]:
        messages: list[str | None] = [None] * len(samples)
        rest: list[int] = []
        for i, (sample, place, out_CHW) in enumerate(zip(samples, places, out, strict=True)):
            try:
                if not self._from_cache(sample, place, out_CHW):
                    rest.append(i)
            except ValueError as error:
                messages[i] = str(error)
        if rest:
            images = [Encoded(samples[i].data, places[i], self._range(samples[i])) for i in rest]
            of_rest = self._decode(images, [out[i] for i in rest], self._sizes)
            for i, message in zip(rest, of_rest, strict=True):
                messages[i] = message
        return messages

    def _range(self, sample: EncodedSample) -> GreyRange | None:
        return self._options.grey_range or sample.grey_range

    def _from_cache(self, sample: EncodedSample, place: Place, out_CHW: Tensor) -> bool:
        """Write the crop by way of the decoded cache; return False if the sample has no cache, or a full one.

        A GPU decodes faster than it could copy images from the cache.
        """
        whole_CHW = (
            not self._gpu
            and sample.decoded_cache
            and sample.decoded_cache.image(
                sample.key,
                sample.data,
                self._options.resize_px,
                grey_range=self._range(sample),
                most_pixels=self._options.most_pixels,
            )
        )
        if not isinstance(whole_CHW, Tensor):
            return False
        resize_px, crop_px, _, resize_mode = self._sizes
        out_CHW.copy_(
            crop_resized(
                whole_CHW, resize_px=resize_px, crop_px=crop_px, place=place, resize_mode=resize_mode
            )
        )
        return True


class _Pending:
    """A batch whose images are being decoded."""

    def __init__(self, plan: BatchPlan, decoder: _Decoder) -> None:
        self._plan = plan
        self._images = decoder.empty(len(plan.refs))
        num_images = len(plan.refs)
        size = decoder.images_per_task or num_images
        self._tasks = [
            decoder.pool.submit(
                _fill, self._images, plan, range(begin, min(begin + size, num_images)), decoder
            )
            for begin in range(0, num_images, size)
        ]

    def batch(self) -> Batch:
        """Wait for the images and return the batch."""
        samples = [sample for task in self._tasks for sample in task.result()]
        plan, images = self._plan, self._images
        shown = [i for i, sample in enumerate(samples) if sample is not None]
        flip = torch.from_numpy(plan.flip)
        if len(shown) < len(samples):
            images, flip = images[shown], flip[shown]
        good = [sample for sample in samples if sample is not None]
        labels = torch.tensor([sample.label for sample in good], dtype=torch.int64)
        batch = Batch(images, labels, flip, [sample.key for sample in good], plan.draws)
        if images.is_cuda or images.is_pinned():
            return batch.mapped(lambda x: x if x.is_cuda or x.is_pinned() else x.pin_memory())
        return batch


def _fill(out_BCHW: Tensor, plan: BatchPlan, indices: range, decoder: _Decoder) -> list[EncodedSample | None]:
    """Decode some images into the batch; return the samples shown, None for a broken sample that is left out."""
    shown: dict[int, EncodedSample | None] = {}
    drawn = {i: plan.refs[i].block[plan.refs[i].at] for i in indices}
    encoded = {i: sample for i, sample in drawn.items() if isinstance(sample, EncodedSample)}
    messages = decoder(
        list(encoded.values()), [_place(plan, i) for i in encoded], [out_BCHW[i] for i in encoded]
    )
    for (i, sample), message in zip(encoded.items(), messages, strict=True):
        if message is None:
            shown[i] = sample
        else:
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    for i, sample in drawn.items():
        if isinstance(sample, BrokenSample):
            plan.quarantines[i].add(*sample)
        if i not in shown:
            shown[i] = _decode_replacement(out_BCHW[i], plan, i, decoder) if plan.may_replace else None
    return [shown[i] for i in indices]


def _decode_replacement(out_CHW: Tensor, plan: BatchPlan, i: int, decoder: _Decoder) -> EncodedSample:
    """Decode the next good image of the block in place of a broken one.

    Blocks do not depend on the number of workers, so the replacement does not either.
    """
    block, at = plan.refs[i].block, plan.refs[i].at
    for step in range(1, len(block)):
        sample = block[(at + step) % len(block)]
        if isinstance(sample, BrokenSample):
            plan.quarantines[i].add(*sample)
        elif sample.key not in plan.quarantines[i]:
            (message,) = decoder([sample], [_place(plan, i)], [out_CHW])
            if message is None:
                return sample
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    raise plan.quarantines[i].error(f"{block[at].key}: all images of its block are broken")


def _place(plan: BatchPlan, i: int) -> Place:
    return tuple(plan.places[i].tolist())
