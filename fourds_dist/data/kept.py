"""Decoded images kept in memory: a small data set is decoded once, not every epoch.

What is kept is the whole image as it was decoded, before any crop, so that batches are the same, bit for bit, as
without. Once the budget is spent nothing more is kept, and what was not is decoded every time.
"""

from __future__ import annotations

import threading

from jaxtyping import UInt8
from torch import Tensor

from fourds_dist.data.decode import decoded_whole
from fourds_dist.data.grey import GreyRange


class Budget:
    """Bytes that may be kept, by any number of `KeptImages` together."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self._lock = threading.Lock()

    @property
    def is_spent(self) -> bool:
        """Whether something did not fit any more."""
        return self._left <= 0

    def take(self, num_bytes: int) -> bool:
        """Whether so many bytes were left; they are no longer. The first that do not fit end it for all."""
        with self._lock:
            fits = num_bytes <= self._left
            self._left = self._left - num_bytes if fits else 0
            return fits


class KeptImages:
    """Images of one split by their keys; safe to use from many threads."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._images: dict[str, Tensor] = {}

    def image(
        self,
        key: str,
        data: bytes | memoryview,
        resize_px: int,
        *,
        grey_range: GreyRange | None = None,
        most_pixels: int | None = None,
    ) -> UInt8[Tensor, "3 H W"] | None:
        """The image, decoded now if it was not before; None once the budget is spent.

        Args:
            data: the encoded file.
            resize_px, grey_range, most_pixels: see `decode`; the same in every call.

        Raises:
            ValueError: not an image that can be read whole.
        """
        held = self._images.get(key)
        if held is not None or self._budget.is_spent:
            return held
        image = decoded_whole(data, resize_px, grey_range=grey_range, most_pixels=most_pixels)
        if key not in self._images and self._budget.take(image.numel()):
            self._images[key] = image
        return image
