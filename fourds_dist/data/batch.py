"""A batch on its way from the loader to the networks: uint8 as decoded, made float on the device.

Shapes: B images of one rank's share of the global batch, H = W = data.crop_px.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Decoded images and what is known of them."""

    images: UInt8[Tensor, "B 3 H W"]
    """RGB, in channels-last memory."""

    labels: Int[Tensor, " B"]
    """Class indices; -1 where an image is not labelled."""

    flip: Bool[Tensor, " B"]
    """Which images are to be mirrored; `normalise` does it."""

    from_source: Bool[Tensor, " B"]
    """Which images come from the source domain (data.source_fraction)."""

    keys: list[str]
    """`shard/key` of every image, for logs."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; from pinned memory the copy runs beside the device's work."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("images", "labels", "flip", "from_source")
        }
        return replace(self, **moved)


def normalise(
    images: UInt8[Tensor, "B 3 H W"],
    flip: Bool[Tensor, " B"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channels_last: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "B 3 H W"]:
    """Float images with zero mean and unit deviation, mirrored where `flip` says so, without waiting for the device.

    Args:
        mean, std: per channel, in [0, 1] units.
        channels_last: memory format of the result.
        dtype: of the result; it is computed in float32.
    """
    memory = torch.channels_last if channels_last else torch.contiguous_format
    scale_3, shift_3 = _constants(mean, std, images.device)
    mirrored = torch.where(
        flip[:, None, None, None], images.flip(-1), images
    )  # as bytes: a fourth of the traffic
    floats = mirrored.to(torch.float32, memory_format=memory)
    floats.mul_(scale_3[:, None, None]).add_(shift_3[:, None, None])
    return floats.to(dtype)


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Made once a device: a copy from the host could not be part of a recorded CUDA graph."""
    with torch.inference_mode(False):
        scale_3 = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift_3 = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale_3, shift_3
