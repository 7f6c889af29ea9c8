"""From an encoded file to uint8 RGB pixels of the training size: decoded, cropped, then resized.

Resizing to resize_px and cropping to crop_px are one step: the crop is located in the original image, and only the crop
is resized, with antialiasing. The crop's edges are rounded to whole pixels of the original.

torchvision decodes JPEGs, twice as fast as Pillow. Pillow decodes everything else, by the rule of `pixels`: other
formats (torchvision's PNG decoder ends the process on a truncated file), CMYK, and JPEGs of at least SCALED times
resize_px, which Pillow decodes at a half, a quarter or an eighth of their size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from fourds_dist.data.decode.grey import GreyRange
from fourds_dist.data.decode.pixels import MOST_PIXELS, allow_pixels, rgb, too_large
from fourds_dist.data.files.file_kinds import why_unread

SCALED = 2
"""A JPEG of at least this many times resize_px is decoded at a fraction of its size."""

WHOLE_PX = 1 << 20
"""A resize_px at which every image is decoded at its full size."""

IMAGES_PER_TASK = 8
"""Images that a decoding task takes."""


class Encoded(NamedTuple):
    """An encoded file with its own decoding parameters; see `decode`."""

    data: bytes | memoryview
    place: tuple[float, float]
    grey_range: GreyRange | None = None


class Sizes(NamedTuple):
    """Decoding parameters of all images of a call; see `decode`."""

    resize_px: int
    crop_px: int
    most_pixels: int | None = None


_SOURCE_LINE = re.compile(r"^\w+, \S+:\d+, ")
"""Prefix of torchvision's messages: the line of its source."""


def decode(
    data: bytes | memoryview,
    *,
    resize_px: int,
    crop_px: int,
    place: tuple[float, float],
    grey_range: GreyRange | None = None,
    most_pixels: int | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """Return a square crop of an encoded image.

    Args:
        resize_px: side to which the image is resized before cropping; shapes other than squares are squeezed, as in the
            paper.
        crop_px: side of the crop, at most resize_px.
        place: position of the crop, (down, right), each in [0, 1]: 0 is the upper or left edge, 0.5 the centre, 1 the
            lower or right edge.
        grey_range: values that are black and white in images of more than 8 bits; None: the file's own (`pixels`).
        most_pixels: images of more pixels are refused; None: MOST_PIXELS.

    Raises:
        ValueError: the image cannot be decoded completely, has more than most_pixels, or has more than 8 bits and an
            unknown range.
    """
    whole_CHW = decoded_whole(data, resize_px, grey_range=grey_range, most_pixels=most_pixels)
    return crop_resized(whole_CHW, resize_px=resize_px, crop_px=crop_px, place=place)


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
    image_CHW: UInt8[Tensor, "3 H W"], *, resize_px: int, crop_px: int, place: tuple[float, float]
) -> UInt8[Tensor, "3 h w"]:
    """Return `decode`'s crop of a decoded image; h = w = crop_px."""
    height, width = image_CHW.shape[1:]
    top, tall = span(height, resize_px, crop_px, place[0])
    left, wide = span(width, resize_px, crop_px, place[1])
    crop_CHW = image_CHW[:, top : top + tall, left : left + wide]
    if (tall, wide) == (crop_px, crop_px):
        return crop_CHW
    # The explicit memory format selects PyTorch's fast path for bytes; the strides of a batch of one are ambiguous.
    crop_1CHW = crop_CHW[None].contiguous(memory_format=torch.channels_last)
    size = (crop_px, crop_px)
    return F.interpolate(crop_1CHW, size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def decode_into(images: Sequence[Encoded], out: Sequence[Tensor], sizes: Sizes) -> list[str | None]:
    """Decode images into tensors of shape (3, crop_px, crop_px); return an error message for each, None if none."""
    messages: list[str | None] = []
    for image, out_CHW in zip(images, out, strict=True):
        try:
            out_CHW.copy_(decode(**image._asdict(), **sizes._asdict()))
            messages.append(None)
        except ValueError as error:
            messages.append(str(error))
    return messages


def span(length: int, resize_px: int, crop_px: int, place: float) -> tuple[int, int]:
    """Return (begin, length) of the crop along a side of `length` pixels; see `decode`."""
    size = max(1, round(length * crop_px / resize_px))
    return round((length - size) * place), size


def _pixels(
    data: bytes | memoryview, resize_px: int, grey_range: GreyRange | None, most_pixels: int
) -> Tensor:
    frame = _jpeg_frame(data)
    if frame is not None and frame[2] in (1, 3) and min(frame[:2]) < SCALED * resize_px:
        if frame[0] * frame[1] > most_pixels:
            raise ValueError(too_large(f"{frame[1]} x {frame[0]}", most_pixels))
        pixels_CHW = decode_jpeg(_tensor(data), mode=ImageReadMode.RGB, apply_exif_orientation=True)
        assert isinstance(pixels_CHW, Tensor)
        return pixels_CHW
    allow_pixels(most_pixels)
    try:
        pixels_HWC = rgb(data, grey_range, resize_px, most_pixels)
    except Image.DecompressionBombError:
        raise ValueError(too_large(f"over {2 * MOST_PIXELS}", most_pixels)) from None
    except UnidentifiedImageError:
        raise ValueError(why_unread(io.BytesIO(data))) from None
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


def _jpeg_frame(data: bytes | memoryview) -> tuple[int, int, int] | None:
    """Return (height, width, components) of a JPEG that libjpeg decodes; None for anything else.

    Pillow reads the size, too, but holds Python's lock for as long as all other work on a training image takes.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return (height, width, data[at + 9]) if data[at + 4] == 8 else None
        if marker == 0xFF:  # padding
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            at += 2
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _tensor(data: bytes | memoryview) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # a copy: PyTorch needs writable memory
