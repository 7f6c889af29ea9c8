"""A batch from the loader to the networks: uint8 as decoded, converted to float on the device.

Shapes: B images of one rank's share of the global batch, H = W = data.crop_px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fourds_dist.data.augment.apply import apply
from fourds_dist.data.augment.draws import Draws

TENSORS = ("images", "labels", "flip")
"""Tensors that every batch has."""


@dataclass(frozen=True)
class Batch:
    """Decoded images with their labels and augmentation."""

    images: UInt8[Tensor, "B 3 H W"]
    """RGB pixels in channels-last memory."""

    labels: Int[Tensor, " B"]
    """Class indices; -1 for unlabelled images."""

    flip: Bool[Tensor, " B"]
    """Which images `normalise` mirrors."""

    keys: list[str]
    """`shard/key` of every image, for logs."""

    draws: Draws | None = None
    """Random parameters of the augmentation that `augmented` will apply; None: no augmentation."""

    num_source: int = 0
    """Images of the source domain in a training batch of two domains; these are the last ones."""

    mixed: tuple[Int[Tensor, " B"], Float[Tensor, " B"]] | None = None
    """Labels of the partners of mixed images, and the images' own shares; None: no mixing."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; copies from pinned memory are asynchronous."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with `function` of each tensor."""
        tensors = {name: function(getattr(self, name)) for name in TENSORS}
        mixed = None if self.mixed is None else (function(self.mixed[0]), function(self.mixed[1]))
        return replace(self, **tensors, draws=self.draws and self.draws.mapped(function), mixed=mixed)


def augmented(batch: Batch, *, fill: tuple[float, ...]) -> Batch:
    """Return the batch after its augmentation, without draws; a batch without draws is returned unchanged.

    Args:
        fill: colour of erased rectangles by channel, in [0, 1].
    """
    draws = batch.draws
    if draws is None:
        return batch
    images, mixed = apply(draws, batch.images, batch.flip, fill=fill), None
    if draws.partners is not None and draws.mix is not None:
        share = torch.full((len(images),), draws.mix.share, device=images.device)
        mixed = (batch.labels[draws.partners], share)
    return replace(batch, images=images, flip=torch.zeros_like(batch.flip), draws=None, mixed=mixed)


def normalise(
    images: UInt8[Tensor, "B 3 H W"],
    flip: Bool[Tensor, " B"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B 3 H W"]:
    """Return normalised float images, (pixel / 255 - mean) / std, mirrored where `flip` is true; no device sync.

    Args:
        mean, std: mean and deviation per channel, for values in [0, 1].
        channels_last: whether the result is in channels-last memory.
        dtype: type of the result; the computation is in float32.
    """
    memory = torch.channels_last if channels_last else torch.contiguous_format
    scale_3, shift_3 = _constants(mean, std, images.device)
    # Mirroring bytes moves a quarter of the memory that mirroring floats would.
    mirrored = torch.where(flip[:, None, None, None], images.flip(-1), images)
    floats = mirrored.to(torch.float32, memory_format=memory)
    floats.mul_(scale_3[:, None, None]).add_(shift_3[:, None, None])
    return floats.to(dtype)


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return (scale, shift) per channel, created once per device: a CUDA graph cannot record a copy from the host."""
    with torch.inference_mode(False):
        scale_3 = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift_3 = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale_3, shift_3
