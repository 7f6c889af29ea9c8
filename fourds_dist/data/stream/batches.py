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

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.decode.decode import (
    IMAGES_PER_TASK,
    Encoded,
    Sizes,
    crop_resized,
    decode_into,
    span,
)
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.processes import decode_processes
from fourds_dist.data.decode.threads import Pool, num_cores
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.partition_reader import SampleRef
from fourds_dist.data.stream.samples import BrokenSample, CachedSample, EncodedSample, Quarantine

MOST_THREADS = 4
"""Largest number of threads to which decoding in threads scales; see `processes` for more."""

ShownSample = EncodedSample | CachedSample
"""A sample with an image."""

Place = tuple[float, float]
"""Position of a crop, see `decode`."""


@dataclass(frozen=True)
class DecodeOptions:
    """Decoding options of a rank.

    Args:
        resize_px, crop_px: see `decode`.
        threads: number of decoding threads.
        in_processes: whether each thread delegates decoding to a separate process.
        prefetch: number of batches that are decoded at a time.
        grey_range: range of all images of more than 8 bits; None: the range of each data set.
        most_pixels: images of more pixels are refused; None: `pixels.MOST_PIXELS`.
        decoded_px: side of the images that the decoder returns, of which the crop is then a part: resize_px for images
            that the disk cache holds whole; None: crop_px, only the crop is resized (`decode`).
    """

    resize_px: int
    crop_px: int
    threads: int
    in_processes: bool
    prefetch: int
    grey_range: GreyRange | None = None
    most_pixels: int | None = None
    decoded_px: int | None = None


@dataclass(frozen=True)
class BatchPlan:
    """Samples of a batch and their augmentation.

    Args:
        refs: (B,) the samples.
        places: (B, 2) position of each crop, see `decode`.
        flip: (B,) see `Batch`.
        quarantines: (B,) quarantine of each sample's stream.
        may_replace: whether a neighbour replaces a broken sample (training) or the sample is left out (evaluation).
    """

    refs: Sequence[SampleRef]
    places: np.ndarray
    flip: np.ndarray
    quarantines: Sequence[Quarantine]
    may_replace: bool


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
    decoder = _Decoder(options)

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
                put(_Pending(plan, pool, decoder))
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
        pool.close()
        thread.join(timeout=5)


class _Decoder:
    """Writes crops of samples into tensors; returns an error message per sample, None if the sample is good."""

    def __init__(self, options: DecodeOptions) -> None:
        self.crop_px = options.crop_px
        self._decoded_px = options.decoded_px or options.crop_px
        self._sizes = Sizes(options.resize_px, self._decoded_px, options.most_pixels)
        self._decode = decode_processes(options.threads) if options.in_processes else decode_into
        self._options = options

    def __call__(
        self, samples: Sequence[ShownSample], places: Sequence[Place], out: Sequence[Tensor]
    ) -> list[str | None]:
        messages: list[str | None] = [None] * len(samples)
        rest: dict[int, EncodedSample] = {}
        for i, sample in enumerate(samples):
            if sample.slot and (image_HWC := sample.slot.read()) is not None:
                self._crop(image_HWC, places[i], out[i])
                continue
            if isinstance(sample, CachedSample):
                sample = sample.encoded()
            if isinstance(sample, BrokenSample):
                messages[i] = sample.cause
                continue
            try:
                if not self._from_memory(sample, places[i], out[i]):
                    rest[i] = sample
            except ValueError as error:
                messages[i] = str(error)
        if rest:
            self._decode_rest(rest, places, out, messages)
        return messages

    def _decode_rest(
        self,
        rest: dict[int, EncodedSample],
        places: Sequence[Place],
        out: Sequence[Tensor],
        messages: list[str | None],
    ) -> None:
        """Decode samples outside the caches, and write them to the disk cache, if there is one."""
        is_whole = self._decoded_px != self.crop_px
        wholes = torch.empty((len(rest), self._decoded_px, self._decoded_px, 3), dtype=torch.uint8)
        images = list(wholes.permute(0, 3, 1, 2)) if is_whole else [out[i] for i in rest]
        encoded = [Encoded(sample.data, places[i], self._range(sample)) for i, sample in rest.items()]
        found = self._decode(encoded, images, self._sizes)
        for (i, sample), image_CHW, message in zip(rest.items(), images, found, strict=True):
            messages[i] = message
            if message is None and sample.slot:
                sample.slot.write(_array(image_CHW))
            if message is None and is_whole:
                self._crop(_array(image_CHW), places[i], out[i])

    def _crop(self, image_HWC: np.ndarray, place: Place, out_CHW: Tensor) -> None:
        """Write the crop of an image of decoded_px; NumPy copies it in a third of PyTorch's time."""
        top, tall = span(self._decoded_px, self._decoded_px, self.crop_px, place[0])
        left, wide = span(self._decoded_px, self._decoded_px, self.crop_px, place[1])
        _array(out_CHW)[...] = image_HWC[top : top + tall, left : left + wide]

    def _range(self, sample: EncodedSample) -> GreyRange | None:
        return self._options.grey_range or sample.grey_range

    def _from_memory(self, sample: EncodedSample, place: Place, out_CHW: Tensor) -> bool:
        """Write the crop by way of the cache in memory; return False if the sample has no cache, or a full one."""
        whole_CHW = sample.decoded_cache and sample.decoded_cache.image(
            sample.key,
            sample.data,
            self._options.resize_px,
            grey_range=self._range(sample),
            most_pixels=self._options.most_pixels,
        )
        if whole_CHW is None:
            return False
        resize_px = self._options.resize_px
        out_CHW.copy_(crop_resized(whole_CHW, resize_px=resize_px, crop_px=self.crop_px, place=place))
        return True


def _array(image_CHW: Tensor) -> np.ndarray:
    """Return the memory of an image in channels-last memory, (H, W, 3)."""
    return image_CHW.permute(1, 2, 0).numpy()


class _Pending:
    """A batch whose images are being decoded."""

    def __init__(self, plan: BatchPlan, pool: Pool, decoder: _Decoder) -> None:
        self._plan = plan
        shape = (len(plan.refs), decoder.crop_px, decoder.crop_px, 3)
        # Large arrays of NumPy are in huge pages: first writes to small pages take longer than copying the images.
        pixels = (
            torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            if torch.cuda.is_available()
            else torch.from_numpy(np.empty(shape, np.uint8))
        )
        self._images = pixels.permute(0, 3, 1, 2)

        def work(begin: int) -> list[ShownSample | None]:
            return _fill(
                self._images, plan, range(begin, min(begin + IMAGES_PER_TASK, len(plan.refs))), decoder
            )

        starts = range(0, len(plan.refs), IMAGES_PER_TASK)
        self._tasks: list[Future[list[ShownSample | None]]] = [pool.submit(work, begin) for begin in starts]

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
        if images.is_pinned():
            labels, flip = labels.pin_memory(), flip.pin_memory()
        return Batch(images, labels, flip, [sample.key for sample in good])


def _fill(out_BCHW: Tensor, plan: BatchPlan, indices: range, decoder: _Decoder) -> list[ShownSample | None]:
    """Decode some images into the batch; return the samples shown, None for a broken sample that is left out."""
    shown: dict[int, ShownSample | None] = {}
    drawn = {i: plan.refs[i].block[plan.refs[i].at] for i in indices}
    good = {i: sample for i, sample in drawn.items() if not isinstance(sample, BrokenSample)}
    messages = decoder(list(good.values()), [_place(plan, i) for i in good], [out_BCHW[i] for i in good])
    for (i, sample), message in zip(good.items(), messages, strict=True):
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


def _decode_replacement(out_CHW: Tensor, plan: BatchPlan, i: int, decoder: _Decoder) -> ShownSample:
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
    return float(plan.places[i, 0]), float(plan.places[i, 1])
