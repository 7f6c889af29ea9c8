"""Decoding: threads turn drawn samples into batches of pixels, a few batches ahead of training.

A feeding thread draws the samples of each batch in order, a pool of threads decodes them into the batch's memory, which
is pinned where there is a GPU. Where there are more threads than scale, each hands its work to a process. Images that
are kept (`kept`) need no decoding at all.
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
from fourds_dist.data.decode import IMAGES_PER_TASK, Encoded, Sizes, crop_resized, decode_into
from fourds_dist.data.decode_process import decode_processes
from fourds_dist.data.grey import GreyRange
from fourds_dist.data.lanes import Draw
from fourds_dist.data.samples import Quarantine, Sample
from fourds_dist.data.threads import Pool, num_cores

MOST_THREADS = 4
"""Threads up to which decoding in them scales; from there on processes do the work (see `decode_process`)."""

Place = tuple[float, float]
"""Of a crop, see `decode`."""


@dataclass(frozen=True)
class Decoding:
    """How a rank decodes.

    Args:
        resize_px, crop_px: see `decode`.
        threads: that decode at a time, each in a process of its own with `in_processes`.
        prefetch: batches that are being made at a time.
        grey_range: of all images of more than 8 bits; None: each data set's own.
        most_pixels: larger images are refused; None: those of more than `pixels.MOST_PIXELS`.
    """

    resize_px: int
    crop_px: int
    threads: int
    in_processes: bool
    prefetch: int
    grey_range: GreyRange | None = None
    most_pixels: int | None = None


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
    how: Decoding,
    *,
    waiting: Callable[[Callable[[], Batch | None]], Batch | None] = lambda get: get(),
    check: Callable[[], None] = lambda: None,
) -> Generator[Batch, None, None]:
    """The plans' batches, in order; closing it ends the threads.

    Args:
        waiting: calls the function it is given, which waits for a batch; the place to measure.
        check: called every second while none is ready; raises where waiting has become vain.

    Raises:
        DataError: what reading or decoding raised.
    """
    ready: queue.Queue[_Pending | BaseException | None] = queue.Queue(how.prefetch)
    stopped = threading.Event()
    pool = decoding_pool(how.threads)
    decoder = _Decoder(how)

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
            del batch  # its memory belongs to the caller alone while the next one is waited for
    finally:
        stopped.set()
        pool.close()
        thread.join(timeout=5)


class _Decoder:
    """Puts crops of samples into tensors; says of each what is wrong with it, None where nothing is."""

    def __init__(self, how: Decoding) -> None:
        self.crop_px = how.crop_px
        self._sizes = Sizes(how.resize_px, how.crop_px, how.most_pixels)
        self._decode = decode_processes(how.threads) if how.in_processes else decode_into
        self._how = how

    def __call__(
        self, samples: Sequence[Sample], places: Sequence[Place], out: Sequence[Tensor]
    ) -> list[str | None]:
        messages: list[str | None] = [None] * len(samples)
        rest: list[int] = []
        for i, (sample, place, out_CHW) in enumerate(zip(samples, places, out, strict=True)):
            try:
                if not self._recalled(sample, place, out_CHW):
                    rest.append(i)
            except ValueError as error:
                messages[i] = str(error)
        if rest:
            images = [Encoded(samples[i].data, places[i], self._range(samples[i])) for i in rest]
            said = self._decode(images, [out[i] for i in rest], self._sizes)
            for i, message in zip(rest, said, strict=True):
                messages[i] = message
        return messages

    def _range(self, sample: Sample) -> GreyRange | None:
        return self._how.grey_range or sample.grey_range

    def _recalled(self, sample: Sample, place: Place, out_CHW: Tensor) -> bool:
        """Whether the image is one of those that are kept."""
        whole_CHW = sample.kept and sample.kept.image(
            sample.key,
            sample.data,
            self._how.resize_px,
            grey_range=self._range(sample),
            most_pixels=self._how.most_pixels,
        )
        if whole_CHW is None:
            return False
        resize_px, crop_px, _ = self._sizes
        out_CHW.copy_(crop_resized(whole_CHW, resize_px=resize_px, crop_px=crop_px, place=place))
        return True


class _Pending:
    """A batch whose images are being decoded."""

    def __init__(self, plan: Plan, pool: Pool, decoder: _Decoder) -> None:
        self._plan = plan
        shape = (len(plan.draws), decoder.crop_px, decoder.crop_px, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        self._images = pixels.permute(0, 3, 1, 2)

        def work(begin: int) -> list[Sample | None]:
            return _fill(
                self._images, plan, range(begin, min(begin + IMAGES_PER_TASK, len(plan.draws))), decoder
            )

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


def _fill(out_BCHW: Tensor, plan: Plan, indices: range, decoder: _Decoder) -> list[Sample | None]:
    """Decode some images into the batch; the samples that are shown, None for a broken one that is left out."""
    shown: dict[int, Sample | None] = {}
    drawn = {i: plan.draws[i].block[plan.draws[i].at] for i in indices}
    whole = {i: sample for i, sample in drawn.items() if isinstance(sample, Sample)}
    messages = decoder(list(whole.values()), [_place(plan, i) for i in whole], [out_BCHW[i] for i in whole])
    for (i, sample), message in zip(whole.items(), messages, strict=True):
        if message is None:
            shown[i] = sample
        else:
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    for i, sample in drawn.items():
        if not isinstance(sample, Sample):
            plan.quarantines[i].add(*sample)
        if i not in shown:
            shown[i] = _stand_in(out_BCHW[i], plan, i, decoder) if plan.may_replace else None
    return [shown[i] for i in indices]


def _stand_in(out_CHW: Tensor, plan: Plan, i: int, decoder: _Decoder) -> Sample:
    """Decode the next good image of a broken one's block in its place.

    Blocks do not depend on the number of workers, and so neither does what is shown.
    """
    block, at = plan.draws[i].block, plan.draws[i].at
    for step in range(1, len(block)):
        sample = block[(at + step) % len(block)]
        if not isinstance(sample, Sample):
            plan.quarantines[i].add(*sample)
        elif sample.key not in plan.quarantines[i]:
            (message,) = decoder([sample], [_place(plan, i)], [out_CHW])
            if message is None:
                return sample
            plan.quarantines[i].add(sample.key, f"not a readable image: {message}")
    broken = block[at]
    key = broken.key if isinstance(broken, Sample) else broken[0]
    raise plan.quarantines[i].error(f"{key}: not one image of its block is good")


def _place(plan: Plan, i: int) -> Place:
    return float(plan.places[i, 0]), float(plan.places[i, 1])
