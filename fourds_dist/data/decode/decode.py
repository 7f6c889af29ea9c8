"""From an encoded file to uint8 RGB pixels of the training size: decoded, cropped, then resized.

Resizing to resize_px and cropping to crop_px are one step: `crop_box` locates the crop in the original image, and only
the crop is resized, with antialiasing. The crop's edges are rounded to whole pixels of the original.

torchvision decodes JPEGs, faster than Pillow. Pillow decodes everything else, by the rule of `pixels`: other
formats (torchvision's PNG decoder ends the process on a truncated file), CMYK, and JPEGs of at least SCALED times
resize_px, which Pillow decodes at a half, a quarter or an eighth of their size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fourds_dist.data.decode.crop_box import Place, ResizeMode, crop_box
from fourds_dist.data.decode.file_kinds import why_unread
from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.jpeg_header import jpeg_header
from fourds_dist.data.decode.pixels import MOST_PIXELS, allow_pixels, rgb, too_large
from fourds_dist.io.light_torchvision import torchvision

_decode_jpeg, _RGB = torch.ops.image.decode_jpeg.default, torchvision.io.ImageReadMode.RGB.value
_resize = torch.ops.aten._upsample_bilinear2d_aa.out
"""Operators of `torchvision.io.decode_jpeg` and `F.interpolate`. The functions take tens of microseconds of Python for
every image, and cannot write into memory of the caller."""

SCALED = 2
"""A JPEG of at least this many times resize_px is decoded at a fraction of its size."""

WHOLE_PX = 1 << 20
"""A resize_px at which every image is decoded at its full size."""

IMAGES_PER_TASK = 8
"""Images that a decoding task takes."""


class Encoded(NamedTuple):
    """An encoded file with its own decoding parameters; see `decode`."""

    data: bytes | memoryview
    place: Place
    grey_range: GreyRange | None = None


class Sizes(NamedTuple):
    """Decoding parameters of all images of a call; see `decode`."""

    resize_px: int
    crop_px: int
    most_pixels: int | None = None
    resize_mode: ResizeMode = "squeeze"


with warnings.catch_warnings():
    # PyTorch warns once in a process of tensors in memory that is not writable.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)

_SOURCE_LINE = re.compile(r"^\w+, \S+:\d+, ")
"""Prefix of torchvision's messages: the line of its source."""


def decode(
    data: bytes | memoryview,
    *,
    resize_px: int,
    crop_px: int,
    place: Place,
    grey_range: GreyRange | None = None,
    most_pixels: int | None = None,
    resize_mode: ResizeMode = "squeeze",
    out: UInt8[Tensor, "3 H W"] | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """Return a square crop of an encoded image.

    Args:
        resize_px, crop_px, resize_mode: size of the resized image and of its crop, at most resize_px; see `crop_box`.
        place: position of the crop, or a crop of random area; see `crop_box`.
        grey_range: values that are black and white in images of more than 8 bits; None: the file's own (`pixels`).
        most_pixels: images of more pixels are refused; None: MOST_PIXELS.
        out: memory of the crop; None: new memory.

    Raises:
        ValueError: the image cannot be decoded completely, has more than most_pixels, or has more than 8 bits and an
            unknown range.
    """
    whole_CHW = decoded_whole(data, resize_px, grey_range=grey_range, most_pixels=most_pixels)
    return crop_resized(
        whole_CHW, resize_px=resize_px, crop_px=crop_px, place=place, resize_mode=resize_mode, out=out
    )


def decoded_whole(
    data: bytes | memoryview,
    resize_px: int,
    *,
    grey_range: GreyRange | None = None,
    most_pixels: int | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """Return the whole image, at least `resize_px` on each side if the original is; for arguments and errors see
    `decode`."""
    try:
        return _pixels(data, resize_px, grey_range, most_pixels or MOST_PIXELS)
    except (OSError, RuntimeError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        cause = _SOURCE_LINE.sub("", " ".join(str(error).split()))
        raise ValueError(cause[:300] or type(error).__name__) from None


def crop_resized(
    image_CHW: UInt8[Tensor, "3 H W"],
    *,
    resize_px: int,
    crop_px: int,
    place: Place,
    resize_mode: ResizeMode = "squeeze",
    out: UInt8[Tensor, "3 h w"] | None = None,
) -> UInt8[Tensor, "3 h w"]:
    """Return `decode`'s crop of a decoded image; h = w = crop_px."""
    top, left, tall, wide = crop_box(
        *image_CHW.shape[1:], resize_px=resize_px, crop_px=crop_px, place=place, resize_mode=resize_mode
    )
    if (tall, wide) == (crop_px, crop_px):
        crop_CHW = image_CHW[:, top : top + tall, left : left + wide]
        return crop_CHW if out is None else out.copy_(crop_CHW)
    crop_HWC = image_CHW.permute(1, 2, 0).numpy()[top : top + tall, left : left + wide]
    # PyTorch's fast path for bytes takes channels-last memory without gaps, which NumPy copies faster than PyTorch.
    crop_1CHW = torch.from_numpy(crop_HWC[None].copy()).permute(0, 3, 1, 2)
    if out is None:
        out = torch.empty((crop_px, crop_px, 3), dtype=torch.uint8).permute(2, 0, 1)
    _resize(crop_1CHW, [crop_px, crop_px], False, None, None, out=out[None])
    return out


def decode_into(images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
    """Decode images into tensors of shape (3, crop_px, crop_px); return an error message for each, None if none."""
    messages: list[str | None] = []
    for image, out_CHW in zip(images, out, strict=True):
        try:
            decode(**image._asdict(), **sizes._asdict(), out=out_CHW)
            messages.append(None)
        except ValueError as error:
            messages.append(str(error))
    return messages


def _pixels(
    data: bytes | memoryview, resize_px: int, grey_range: GreyRange | None, most_pixels: int
) -> Tensor:
    header = jpeg_header(data)
    if header and header.num_components in (1, 3) and min(header.height, header.width) < SCALED * resize_px:
        if header.num_pixels > most_pixels:
            raise ValueError(too_large(f"{header.width} x {header.height}", most_pixels))
        return _decode_jpeg(encoded_tensor(data), _RGB, True)  # True: with its EXIF orientation
    allow_pixels(most_pixels)
    try:
        pixels_HWC = rgb(data, grey_range, resize_px, most_pixels)
    except Image.DecompressionBombError:
        raise ValueError(too_large(f"over {2 * MOST_PIXELS}", most_pixels)) from None
    except UnidentifiedImageError:
        raise ValueError(why_unread(io.BytesIO(data))) from None
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


def encoded_tensor(data: bytes | memoryview) -> UInt8[Tensor, " N"]:
    """Return the memory of an encoded file as a tensor, for decoders, which only read it: a copy would take time."""
    return torch.frombuffer(data, dtype=torch.uint8)
