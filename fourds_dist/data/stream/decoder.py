"""Crops of samples: from the caches of decoded images, and otherwise decoded now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.decode.crop_box import Place, ResizeMode, crop_box
from fourds_dist.data.decode.decode import IMAGES_PER_TASK, Encoded, Sizes, crop_resized, decode_into
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.processes import decode_processes
from fourds_dist.data.decode.threads import Pool
from fourds_dist.data.stream.samples import BrokenSample, CachedSample, EncodedSample

if TYPE_CHECKING:
    from fourds_dist.data.decode.gpu import GpuDecoder

ShownSample = EncodedSample | CachedSample
"""A sample with an image."""

Row = np.ndarray | Tensor
"""Memory of an image, (H, W, 3) uint8: an array, or a tensor on a GPU."""


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
        decoded_px: side of the images that the decoder returns, of which the crop is then a part: resize_px for images
            that the disk cache holds whole; None: crop_px, only the crop is resized (`decode`).
        gpu: GPU whose JPEG engine decodes, into batches on this device; None: all images are decoded on the CPU.
    """

    resize_px: int
    crop_px: int
    threads: int
    in_processes: bool
    prefetch: int
    grey_range: GreyRange | None = None
    most_pixels: int | None = None
    decoded_px: int | None = None
    resize_mode: ResizeMode = "squeeze"
    gpu: torch.device | None = None


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


class Decoder:
    """Writes crops of samples into rows of `memory`; returns an error message per sample, None if the sample is good.

    Args:
        pool: threads that decode. On a GPU, they decode what the GPU cannot.
    """

    def __init__(self, options: DecodeOptions, pool: Pool) -> None:
        self._crop_px = options.crop_px
        self._decoded_px = options.decoded_px or options.crop_px
        self._sizes = Sizes(options.resize_px, self._decoded_px, options.most_pixels, options.resize_mode)
        self._decode = decode_processes(options.threads) if options.in_processes else decode_into
        self._options = options
        self.pool = pool
        """Threads that call this object."""
        self.images_per_task: int | None = IMAGES_PER_TASK
        """Images of a call; None: a whole batch."""
        self._gpu: GpuDecoder | None = None
        if options.gpu is not None:
            from fourds_dist.data.decode.gpu import NUM_CALLERS, GpuDecoder

            self._decode = self._gpu = GpuDecoder(options.gpu, self._decode, pool)
            self.pool, self.images_per_task = decoding_pool(NUM_CALLERS), None

    def close(self) -> None:
        """End the threads that wait for the GPU; the caller closes its own pool."""
        if self._gpu:
            self.pool.close()

    def memory(self, num_images: int) -> tuple[Tensor, Sequence[Row]]:
        """Return memory for a batch: (B, 3, crop_px, crop_px) in channels-last order, and the rows of its images."""
        shape = (num_images, self._crop_px, self._crop_px, 3)
        if self._gpu:
            with torch.cuda.stream(self._gpu.stream):
                pixels = torch.empty(shape, dtype=torch.uint8, device=self._gpu.device)
            return pixels.permute(0, 3, 1, 2), pixels.unbind()
        # Large arrays of NumPy are in huge pages: first writes to small pages take longer than copying the images.
        pixels = (
            torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            if torch.cuda.is_available()
            else torch.from_numpy(np.empty(shape, np.uint8))
        )
        return pixels.permute(0, 3, 1, 2), list(pixels.numpy())

    def __call__(
        self, samples: Sequence[ShownSample], places: Sequence[Place], out: Sequence[Row]
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
        out: Sequence[Row],
        messages: list[str | None],
    ) -> None:
        """Decode samples outside the caches, and write them to the disk cache, if there is one."""
        is_whole = self._decoded_px != self._crop_px
        shape = (len(rest), self._decoded_px, self._decoded_px, 3)
        images: list[Row] = list(np.empty(shape, np.uint8)) if is_whole else [out[i] for i in rest]
        encoded = [Encoded(sample.data, places[i], self._range(sample)) for i, sample in rest.items()]
        found = self._decode(encoded, [_tensor(image_HWC) for image_HWC in images], self._sizes)
        for (i, sample), image_HWC, message in zip(rest.items(), images, found, strict=True):
            messages[i] = message
            if message is None and isinstance(image_HWC, np.ndarray):
                if sample.slot:
                    sample.slot.write(image_HWC)
                if is_whole:
                    self._crop(image_HWC, places[i], out[i])

    def _crop(self, image_HWC: np.ndarray, place: Place, out_HWC: Row) -> None:
        """Write the crop of an image of decoded_px; NumPy copies it in a third of PyTorch's time."""
        top, left, tall, wide = crop_box(
            self._decoded_px,
            self._decoded_px,
            resize_px=self._decoded_px,
            crop_px=self._crop_px,
            place=place,
        )
        assert isinstance(out_HWC, np.ndarray)
        out_HWC[...] = image_HWC[top : top + tall, left : left + wide]

    def _range(self, sample: EncodedSample) -> GreyRange | None:
        return self._options.grey_range or sample.grey_range

    def _from_memory(self, sample: EncodedSample, place: Place, out_HWC: Row) -> bool:
        """Write the crop by way of the cache in memory; return False if the sample has no cache, or a full one.

        A GPU decodes faster than it could copy images from there.
        """
        if self._gpu or not sample.decoded_cache:
            return False
        whole_CHW = sample.decoded_cache.image(
            sample.key,
            sample.data,
            self._options.resize_px,
            grey_range=self._range(sample),
            most_pixels=self._options.most_pixels,
        )
        if whole_CHW is None:
            return False
        crop_CHW = crop_resized(
            whole_CHW,
            resize_px=self._options.resize_px,
            crop_px=self._crop_px,
            place=place,
            resize_mode=self._options.resize_mode,
        )
        _tensor(out_HWC).copy_(crop_CHW)
        return True


def _tensor(image_HWC: Row) -> Tensor:
    """Return an image's memory as (3, H, W)."""
    return (torch.from_numpy(image_HWC) if isinstance(image_HWC, np.ndarray) else image_HWC).permute(2, 0, 1)
