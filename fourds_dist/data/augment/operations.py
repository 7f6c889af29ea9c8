"""Operations on batches of images, with the results of torchvision.transforms.v2 and a parameter per image.

torchvision's functions take one parameter for all images of a call, and some copy a constant to the device in every
call, for which the host waits. Operations without parameters are torchvision's. Here every result of an image depends
on this image alone, bit for bit, so that it does not depend on the number of workers.

Shapes: N images of one operation, H = W.
"""

from __future__ import annotations

import enum
import importlib
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from fourds_dist.io.light_torchvision import torchvision

NUM_PARAMETERS = 6
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, as in torchvision."""
CLOSE_TO_256 = 255.999
"""Factor from [0, 1] to the 256 levels, as in torchvision."""


class Operation(enum.IntEnum):
    """An operation, and its parameters."""

    AFFINE = 0
    """Nearest pixel, black outside. The six numbers of the matrix from a place in the result to one in the image, in
    pixels from the centre, (right, down)."""
    BRIGHTNESS = 1
    """Factor."""
    CONTRAST = 2
    """Factor."""
    SATURATION = 3
    """Factor."""
    HUE = 4
    """Shift, as a fraction of the colour circle."""
    SHARPNESS = 5
    """Factor."""
    POSTERIZE = 6
    """Mask of the bits that stay, in [0, 255]."""
    SOLARIZE = 7
    """Smallest value that is inverted, in [0, 255]."""
    AUTOCONTRAST = 8
    EQUALIZE = 9
    NOTHING = 10


def operate(
    operation: Operation, images: UInt8[Tensor, "N 3 H W"], parameters: Float[Tensor, "N P"]
) -> UInt8[Tensor, "N 3 H W"]:
    """Return the images after an operation; no device sync."""
    if operation == Operation.AFFINE:
        return _affine(images, parameters)
    value = parameters[:, :1, None, None]
    match operation:
        case Operation.BRIGHTNESS:
            return _bytes(images * value)
        case Operation.CONTRAST:
            # The sum of whole numbers in float64 is exact, in any order.
            mean = _grey(images).double().mean(dim=(-2, -1), keepdim=True).float()
            return _bytes(images * value + mean * (1 - value))
        case Operation.SATURATION:
            return _bytes(images * value + _grey(images) * (1 - value))
        case Operation.HUE:
            return _shift_hue(images, value)
        case Operation.SHARPNESS:
            return _sharpen(images, value)
        case Operation.POSTERIZE:
            return images & value.to(torch.uint8)
        case Operation.SOLARIZE:
            return torch.where(images >= value, images.bitwise_not(), images)
        case Operation.AUTOCONTRAST:
            return _torchvision_functions().autocontrast(images)
        case Operation.EQUALIZE:
            return _torchvision_functions().equalize(images)
    return images


def _torchvision_functions() -> ModuleType:
    return importlib.import_module(
        f"{torchvision.__name__}.transforms.v2.functional"
    )  # slow, and rarely needed


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return (N, 1, H, W) whole grey levels in float32."""
    red, green, blue = images.unbind(1)
    return (red * GREY[0] + green * GREY[1] + blue * GREY[2]).floor_().unsqueeze(1)


def _sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """Move the pixels inside the border away from, or towards, the mean of their 3 x 3 pixels with the centre five
    times."""
    floats = images.float()
    inner = floats[..., 1:-1, 1:-1]
    columns = floats[..., :-2] + floats[..., 1:-1] + floats[..., 2:]
    sums = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :] + 4 * inner
    inner += ((sums / 13).round_() - inner) * (1 - factor)
    return _bytes(floats)


def _shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    floats = images.float() / 255
    red, green, blue = floats.unbind(1)
    most = floats.amax(1)
    chroma = most - floats.amin(1)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sector = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = (sector + 6 * shift[:, 0]).remainder_(6)
    # Red, green and blue are the same function of the hue, a third of the circle apart.
    channels = []
    for offset in (5, 3, 1):
        k = (sector + offset).remainder_(6)
        channels.append(most - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return (torch.stack(channels, 1) * CLOSE_TO_256).to(torch.uint8)


def _affine(images: Tensor, matrices: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    right = torch.arange(width, device=images.device) - (width - 1) / 2
    down = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    # Sums of products instead of a matrix product, whose rounding may depend on the number of images.
    a, b, c, d, e, f = (x[:, None, None] for x in matrices.unbind(1))
    grid = torch.stack(
        [(a * right + b * down + c) / (0.5 * width), (d * right + e * down + f) / (0.5 * height)], dim=-1
    )
    moved = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.to(torch.uint8)
