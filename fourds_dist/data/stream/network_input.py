"""Size and normalisation of the images that a network takes, and the conversion of a batch to them.

Both networks of a run see the same crop of data.crop_px, decoded once. A batch is normalised by data.mean and data.std.
A network with a size or normalisation of its own gets the batch through an `InputConversion`:

    y = resize(x) * (std / own std) + (mean - own mean) / own std

The resize is bilinear and antialiased, as that of the decoder. Its weights sum to 1, so the order of resize and affine
map does not matter. The size follows from the crop, not from the file: a crop of 224 px resized to 160 px differs from
the same part of the file resized to 160 px at once. Evaluation and exported programs therefore resize the same crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from fourds_dist.data.stream.config import DataConfig

Channels = tuple[float, float, float]
"""A number for red, green and blue."""


@dataclass(frozen=True)
class NetworkInput:
    """Size and normalisation of the images that a network takes.

    Args:
        image_px: side of the square images in pixels.
        mean, std: mean and standard deviation per channel, for values in [0, 1].
    """

    image_px: int
    mean: Channels
    std: Channels

    @classmethod
    def of_data(cls, config: DataConfig) -> NetworkInput:
        """Return the size and the normalisation of the batches of a run."""
        return cls(config.crop_px, config.mean, config.std)

    def conversion(self, batches: NetworkInput) -> InputConversion | None:
        """Return the conversion of batches to this input; None if both are equal."""
        return None if self == batches else InputConversion(batches, self)


@dataclass(frozen=True)
class InputConversion:
    """Conversion of normalised images of a batch to the images that a network takes; no device sync.

    Args:
        batches, network: size and normalisation before and after the conversion.

    >>> batches = NetworkInput(4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> conversion = InputConversion(batches, NetworkInput(2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    >>> conversion(torch.ones(1, 3, 4, 4))[0, 0]  # white
    tensor([[1., 1.],
            [1., 1.]])
    """

    batches: NetworkInput
    network: NetworkInput

    def __call__(self, images: Float[Tensor, "B 3 _H _W"]) -> Float[Tensor, "B 3 H W"]:
        images = resized(images, self.network.image_px)
        if (self.batches.mean, self.batches.std) != (self.network.mean, self.network.std):
            scale_3, shift_3 = _constants(self.batches, self.network, images.device)
            images = torch.addcmul(shift_3[:, None, None], images, scale_3[:, None, None])
        return images


def resized(images: Float[Tensor, "B 3 _H _W"], image_px: int) -> Float[Tensor, "B 3 H W"]:
    """Return square images of image_px, bilinear and antialiased; images of this size are returned as given."""
    size = (image_px, image_px)
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


@lru_cache(maxsize=16)
def _constants(batches: NetworkInput, network: NetworkInput, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (scale, shift) per channel, created once per device: a CUDA graph cannot record a copy from the host."""
    pairs = list(zip(batches.mean, batches.std, network.mean, network.std, strict=True))
    with torch.inference_mode(False):
        scale_3 = torch.tensor([std / own_std for _, std, _, own_std in pairs], device=device)
        shift_3 = torch.tensor([(mean - own) / own_std for mean, _, own, own_std in pairs], device=device)
    return scale_3, shift_3
