"""Crops of samples: from the caches of decoded images, and otherwise decoded now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourds_dist.data.decode.decode import Encoded, Sizes, crop_resized, decode_into, span
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.processes import decode_processes
from fourds_dist.data.stream.samples import BrokenSample, CachedSample, EncodedSample

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


class Decoder:
    """Writes crops of samples, each into (crop_px, crop_px, 3) uint8; returns an error message per sample, None if the
    sample is good."""

    def __init__(self, options: DecodeOptions) -> None:
        self.crop_px = options.crop_px
        self._decoded_px = options.decoded_px or options.crop_px
        self._sizes = Sizes(options.resize_px, self._decoded_px, options.most_pixels)
        self._decode = decode_processes(options.threads) if options.in_processes else decode_into
        self._options = options

    def __call__(
        self, samples: Sequence[ShownSample], places: Sequence[Place], out: Sequence[np.ndarray]
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
        out: Sequence[np.ndarray],
        messages: list[str | None],
    ) -> None:
        """Decode samples outside the caches, and write them to the disk cache, if there is one."""
        is_whole = self._decoded_px != self.crop_px
        shape = (len(rest), self._decoded_px, self._decoded_px, 3)
        images = list(np.empty(shape, np.uint8)) if is_whole else [out[i] for i in rest]
        encoded = [Encoded(sample.data, places[i], self._range(sample)) for i, sample in rest.items()]
        found = self._decode(encoded, [_tensor(image_HWC) for image_HWC in images], self._sizes)
        for (i, sample), image_HWC, message in zip(rest.items(), images, found, strict=True):
            messages[i] = message
            if message is None and sample.slot:
                sample.slot.write(image_HWC)
            if message is None and is_whole:
                self._crop(image_HWC, places[i], out[i])

    def _crop(self, image_HWC: np.ndarray, place: Place, out_HWC: np.ndarray) -> None:
        """Write the crop of an image of decoded_px; NumPy copies it in a third of PyTorch's time."""
        top, tall = span(self._decoded_px, self._decoded_px, self.crop_px, place[0])
        left, wide = span(self._decoded_px, self._decoded_px, self.crop_px, place[1])
        out_HWC[...] = image_HWC[top : top + tall, left : left + wide]

    def _range(self, sample: EncodedSample) -> GreyRange | None:
        return self._options.grey_range or sample.grey_range

    def _from_memory(self, sample: EncodedSample, place: Place, out_HWC: np.ndarray) -> bool:
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
        crop_CHW = crop_resized(whole_CHW, resize_px=resize_px, crop_px=self.crop_px, place=place)
        _tensor(out_HWC).copy_(crop_CHW)
        return True


def _tensor(image_HWC: np.ndarray) -> Tensor:
    """Return an image's memory as (3, H, W)."""
    return torch.from_numpy(image_HWC).permute(2, 0, 1)
