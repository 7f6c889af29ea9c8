"""What the values of an image file mean: 8-bit RGB of any file, by one rule.

Training, evaluation, prediction and the model card prepare images by this file alone. The model card carries the code
below the imports as it stands, so the code needs NumPy and Pillow and nothing else.

Values of 8 bits are taken as they are. Values of more bits (16-bit, 32-bit and float images) are scaled linearly from
the grey range of their data set, which becomes 0 to 255; what lies outside is cut off. Where no data set says a range,
the file's own does: PNG's sBIT, TIFF's BitsPerSample and MaxSampleValue, a PGM's largest value; else the depth of its
type (0 to 65535), and 0 to 1 for floats. An image whose values lie outside of that is refused: a guess from its own
values would scale every image of a data set differently. `grey` decides the range of a data set.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps


def allow_pixels(most_pixels: int) -> None:
    """Let Pillow open images of so many pixels, in this process."""
    if Image.MAX_IMAGE_PIXELS is not None and most_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most_pixels


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What Pillow may open: those that shards may hold (`grouping`). It knows more, some of which start other programs."""


MOST_PIXELS = 89_478_485
"""Larger images are refused, since a small file can claim any size; Pillow's own limit, a quarter of a gibibyte."""


def rgb(
    data: bytes | memoryview,
    grey_range: tuple[float, float] | None = None,
    resize_px: int | None = None,
    most_pixels: int | None = None,
) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8: its orientation applied, transparency laid over white.

    With resize_px a JPEG of at least twice that size is decoded at a half, a quarter or an eighth of its size.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if most_pixels and image.width * image.height > most_pixels:
        raise ValueError(too_large(f"{image.width} x {image.height}", most_pixels))
    if is_deep(image):
        values, alpha, is_negative, orientation = deep_values(data)
        low, high = grey_range or own_range(data, values)
        pixels = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
        pixels = (255 - pixels if is_negative else pixels) * alpha + 255 * (1 - alpha)
        pixels = np.broadcast_to(pixels.round().astype(np.uint8), (*pixels.shape[:2], 3))
        turned = Image.fromarray(np.ascontiguousarray(pixels))
        turned.getexif()[0x0112] = orientation
        return np.array(ImageOps.exif_transpose(turned))
    if resize_px:
        image.draft(None, (resize_px, resize_px))
    plain = ImageOps.exif_transpose(image)
    if plain.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in plain.info:
        plain = plain.convert("RGBA")
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
    return np.array(plain.convert("RGB"))


def too_large(size: str, most_pixels: int) -> str:
    """What is wrong with an image of more pixels than are allowed."""
    return (
        f"{size} pixels are more than {most_pixels}: a decompression bomb? Where it is none, allow more by "
        "data.max_megapixels of a run, or --max-megapixels of pack, evaluate and predict"
    )


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is opened, not loaded, has values of more than 8 bits, or signed ones."""
    has_deep_colours = image.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(image)
    return image.mode[0] in "IF" or has_deep_colours or (image.mode == "L" and _tiff(image, 339, 1) == 2)


def deep_values(data: bytes | memoryview) -> tuple[np.ndarray, np.ndarray, bool, int]:
    """Of an image of more than 8 bits: values (H, W, 1 or 3) float64, opacity (H, W, 1) in [0, 1], whether 0 is white,
    and the orientation by EXIF that is still to be applied.

    Pillow reads 16-bit colours as their upper bytes, but gives either byte when another byte order is named.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    base, _, order = _raw_mode(image).partition(";16")
    codec, said_by_ppm = image.tile[0][0] if image.tile else "", _said_by_ppm(image)
    if image.mode in ("RGB", "RGBA", "LA") and codec == "raw" and _tiff(image, 284, 1) == 2:
        raise ValueError("16-bit colours in separate planes cannot be read; write the colours pixel by pixel")
    if base == "LA":  # four bytes a pixel, as RGBA has
        quads = _read_as(data, "RGBA")
        values = quads[..., [0, 2]] * 256.0 + quads[..., [1, 3]]
    elif image.mode in ("RGB", "RGBA"):
        words = [_read_as(data, f"{base.replace('RGBa', 'RGBA')};16{other}") for other in "BL"]
        is_big = order == "B" or (order == "N" and sys.byteorder == "big")
        values = words[not is_big] * 256.0 + words[is_big]
    else:
        values = np.asarray(image)
        if image.mode == "L":
            values = values.view(np.int8)
        elif _tiff(image, 258, 0) == 32 and _tiff(image, 339, 1) == 1:
            values = values.view(np.uint32)
        values = values[..., None].astype(np.float64)
    if codec == "ppm":  # scaled to 65535 by Pillow
        values = np.round(values * (said_by_ppm / 65535))
    if num_wrong := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(
            f"{num_wrong} of its {values.size} values are NaN or infinite; replace them by numbers"
        )
    alpha, clear = np.ones((*values.shape[:2], 1)), image.info.get("transparency")
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1:] / 65535
        if base == "RGBa":  # colours times opacity
            values = values / np.maximum(alpha, 1 / 65535)
    elif clear is not None:
        alpha = 1.0 - (values == np.array(clear)).all(-1, keepdims=True)
    is_negative = image.mode[0] in "IFL" and _tiff(image, 262, 1) == 0
    orientation = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)  # Pillow turns TIFFs itself
    return values, alpha, is_negative, orientation


def own_range(data: bytes | memoryview, values: np.ndarray) -> tuple[float, float]:
    """(lowest, highest) value by what the file says of itself, else by the type of its values.

    Raises ValueError where the values lie outside: nothing then tells what is black and what is white.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    low, high = said_range(data, values) or {"F": (0, 1), "L": (-128, 127)}.get(image.mode, (0, 65535))
    if low <= values.min(initial=low) and values.max(initial=high) <= high:
        return low, high
    raise ValueError(
        f"its values go from {values.min():g} to {values.max():g}, and nothing says which of them is black and which "
        "white: set data.grey_range, or pack the data set again, which measures it"
    )


def said_range(data: bytes | memoryview, values: np.ndarray) -> tuple[float, float] | None:
    """The range that a file names; None where it names none, or one that its values leave."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    said = None
    if image.format == "PNG" and (bits := _significant_bits(data)) < 16:
        # By the standard such values are scaled to 16 bits, and then small ones are multiples; often they are not.
        is_scaled = values.max(initial=0) >= 2**bits or not (values % 2 ** (16 - bits)).any()
        said = (0, 65535 if is_scaled else 2**bits - 1)
    elif image.format == "PPM":
        said = (0, _said_by_ppm(image))
    elif image.format == "TIFF":
        bits, lowest = _tiff(image, 258, 16), _tiff(image, 340, 280, 0)
        highest = _tiff(image, 341, 281, None)
        if highest is not None and lowest < highest:
            said = (min(lowest, 0), highest)
        elif 8 < bits < 16:
            said = (0, 2**bits - 1)
    fits = said and said[0] <= values.min(initial=said[0]) and values.max(initial=said[1]) <= said[1]
    return said if fits else None


def _significant_bits(png: bytes | memoryview) -> int:
    """What a PNG's sBIT chunk says, the largest of its colours; 16 without one."""
    at = 8
    while at + 12 < len(png) and (kind := bytes(png[at + 4 : at + 8])) != b"IDAT":
        size = int.from_bytes(png[at : at + 4], "big")
        if kind == b"sBIT" and 0 < size <= 4:
            return max(bytes(png[at + 8 : at + 8 + (1 if size < 3 else 3)]))
        at += 12 + size
    return 16


def _said_by_ppm(image: ImageFile.ImageFile) -> int:
    """The largest value by a PPM's header, which Pillow scales to 65535."""
    how: Any = image.tile[0][3] if image.tile and image.tile[0][0] == "ppm" else None
    return how[1] if isinstance(how, tuple) else 65535


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the values lie in the file, in Pillow's words: RGB;16B, ..."""
    how: Any = image.tile[0][3] if image.tile else ""
    return str(how[0] if isinstance(how, tuple) and how else how)


def _read_as(data: bytes | memoryview, raw_mode: str) -> np.ndarray:
    """The bytes of an image, read as if they lay in the file as `raw_mode` says."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    tiles: Any = image.tile
    image.tile = [
        type(t)(*t[:3], (raw_mode, *t[3][1:]) if isinstance(t[3], tuple) else raw_mode) for t in tiles
    ]
    return np.asarray(image)


def _tiff(image: ImageFile.ImageFile, *tags: int | None) -> Any:
    """The first of the tags that a TIFF has, the first of its values; the last argument where there is none."""
    *numbers, otherwise = tags
    held: Any = getattr(image, "tag_v2", {})
    for number in numbers if image.format == "TIFF" else ():
        if number in held:
            value = held[number]
            return value[0] if isinstance(value, tuple) else value
    return otherwise
