"""Cache of decoded images in memory: a small data set is decoded once, not every epoch.

The cache holds whole images, decoded but not cropped, so batches are bit for bit the same as without the cache. Once
the budget is exhausted, no more images are added; images outside the cache are decoded every time.
"""

from __future__ import annotations

import threading

from jaxtyping import UInt8
from torch import Tensor

from fourds_dist.data.decode.decode import decoded_whole
from fourds_dist.data.decode.grey import GreyRange


class ByteBudget:
    """Number of bytes that any number of `DecodedCache` may hold together."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self._lock = threading.Lock()

    @property
    def is_spent(self) -> bool:
        """Whether the budget is exhausted."""
        return self._left <= 0

    def take(self, num_bytes: int) -> bool:
        """Reserve bytes; return False once the budget is exhausted. An exhausted budget stays exhausted."""
        with self._lock:
            fits = num_bytes <= self._left
            self._left = self._left - num_bytes if fits else 0
            return fits


class DecodedCache:
    """Decoded images of one split by their keys; safe to use from many threads."""

    def __init__(self, budget: ByteBudget) -> None:
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
        """Return the decoded image, from the cache or decoded now; None if the cache is full and lacks it.

        Args:
            data: the encoded file.
            resize_px, grey_range, most_pixels: see `decode`; the same in every call.

        Raises:
            ValueError: see `decode`.
        """
        held = self._images.get(key)
        if held is not None or self._budget.is_spent:
            return held
        image = decoded_whole(data, resize_px, grey_range=grey_range, most_pixels=most_pixels)
        if key not in self._images and self._budget.take(image.numel()):
            self._images[key] = image
        return image
