"""Conversion of any image file to 8-bit RGB, by one rule.

Training, evaluation, prediction and the model card all use this module. The model card contains a copy of the code
below the imports, so the code needs only NumPy and Pillow.

8-bit values are used as stored. Values of more bits (16-bit, 32-bit and float images) are scaled linearly: the grey
range of their data set becomes 0 to 255, and values outside are clipped. If the data set has no range, the file's own
range applies: PNG's sBIT, TIFF's BitsPerSample and MaxSampleValue, a PGM's largest value, otherwise the depth of the
type (0 to 65535), and 0 to 1 for floats. An image with values outside of the file's own range is refused: a range
guessed from its values would scale every image of a data set differently. `grey` determines the range of a data set.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps


def allow_pixels(most_pixels: int) -> None:
    """Allow Pillow to open images of up to most_pixels pixels in this process."""
    if Image.MAX_IMAGE_PIXELS is not None and most_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most_pixels


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open, which are those that shards may hold (`webdataset_samples`). Some of Pillow's other
formats start other programs."""


MOST_PIXELS = 89_478_485
"""Default limit of pixels: a small file can claim any size. This is Pillow's own limit, a quarter of a gibibyte."""


def rgb(
    data: bytes | memoryview,
    grey_range: tuple[float, float] | None = None,
    resize_px: int | None = None,
    most_pixels: int | None = None,
) -> np.ndarray:
    """Return an encoded image as (H, W, 3) uint8, with its orientation applied and transparency over white.

    With resize_px, a JPEG of at least twice that size is decoded at a half, a quarter or an eighth of its size.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if most_pixels and image.width * image.height > most_pixels:
        raise ValueError(too_large(f"{image.width} x {image.height}", most_pixels))
    if is_deep(image):
        values, alpha, is_negative, orientation = deep_values(data)
        low, high = grey_range or own_range(data, values)
        check_scale(values, low, high, is_float=image.mode == "F")
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
    """Return the error message for an image of more pixels than are allowed."""
    return (
        f"{size} pixels are more than {most_pixels}, which may be a decompression bomb; if the image is genuine, raise "
        "data.max_megapixels of a run, or --max-megapixels of pack, evaluate and predict"
    )


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Return whether an image that is opened but not loaded has values of more than 8 bits, or signed values."""
    has_deep_colours = image.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(image)
    return image.mode[0] in "IF" or has_deep_colours or (image.mode == "L" and _tiff(image, 339, 1) == 2)


def deep_values(data: bytes | memoryview) -> tuple[np.ndarray, np.ndarray, bool, int]:
    """Return (values, opacity, whether 0 is white, EXIF orientation to apply) of an image of more than 8 bits.

    Values are (H, W, 1 or 3) float64, opacity is (H, W, 1) in [0, 1]. Pillow reads only the upper byte of 16-bit
    colours; reading once in each byte order yields both bytes.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    base, _, order = _raw_mode(image).partition(";16")
    codec, ppm_maximum = image.tile[0][0] if image.tile else "", _ppm_maximum(image)
    if image.mode in ("RGB", "RGBA", "LA") and codec == "raw" and _tiff(image, 284, 1) == 2:
        raise ValueError("16-bit colours in separate planes cannot be read; write the colours pixel by pixel")
    if base == "LA":  # four bytes per pixel, as in RGBA
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
    if codec == "ppm":  # Pillow scales to 65535
        values = np.round(values * (ppm_maximum / 65535))
    if num_wrong := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(
            f"{num_wrong} of its {values.size} values are NaN or infinite; replace them by numbers"
        )
    alpha, clear = np.ones((*values.shape[:2], 1)), image.info.get("transparency")
    if values.shape[2] in (2, 4):
        values, alpha = values[..., :-1], values[..., -1:] / 65535
        if base == "RGBa":  # colours are multiplied by opacity
            values = values / np.maximum(alpha, 1 / 65535)
    elif clear is not None:
        alpha = 1.0 - (values == np.array(clear)).all(-1, keepdims=True)
    is_negative = image.mode[0] in "IFL" and _tiff(image, 262, 1) == 0
    orientation = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)  # Pillow rotates TIFFs
    return values, alpha, is_negative, orientation


def check_scale(values: np.ndarray, low: float, high: float, *, is_float: bool) -> None:
    """Raise ValueError for floats of 0 to 1 under a range of integers, and for integers under a range of such floats.

    All of these images would be black, or all white.
    """
    lowest, highest = values.min(initial=high), values.max(initial=low)
    if is_float and 0 <= lowest < highest <= 1 and high - low >= 255:
        kind = "float values of 0 to 1"
    elif not is_float and high - low <= 1 < highest:
        kind = f"integer values up to {highest:g}"
    else:
        return
    raise ValueError(
        f"the image has {kind}, but is read with the grey range {low:g} to {high:g}: convert the image to the scale of "
        "the others, or give another range by data.grey_range of a run, or --grey-range of evaluate and predict"
    )


def own_range(data: bytes | memoryview, values: np.ndarray) -> tuple[float, float]:
    """Return the range that the file declares, otherwise that of the type of its values.

    Raises ValueError if values lie outside of the type's range: black and white are unknown then.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    low, high = said_range(data, values) or {"F": (0, 1), "L": (-128, 127)}.get(image.mode, (0, 65535))
    if low <= values.min(initial=low) and values.max(initial=high) <= high:
        return low, high
    raise ValueError(
        f"the image's values range from {values.min():g} to {values.max():g}, and the file does not declare which are "
        "black and white: set data.grey_range, or pack the data set again, which measures the range"
    )


def said_range(data: bytes | memoryview, values: np.ndarray) -> tuple[float, float] | None:
    """Return the range that a file declares; None if it declares none, or its values lie outside."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    declared = None
    if image.format == "PNG" and (bits := _significant_bits(data)) < 16:
        # The standard scales such values to 16 bits, so that small values are multiples; many files do not scale them.
        is_scaled = values.max(initial=0) >= 2**bits or not (values % 2 ** (16 - bits)).any()
        declared = (0, 65535 if is_scaled else 2**bits - 1)
    elif image.format == "PPM":
        declared = (0, _ppm_maximum(image))
    elif image.format == "TIFF":
        bits, lowest = _tiff(image, 258, 16), _tiff(image, 340, 280, 0)
        highest = _tiff(image, 341, 281, None)
        if highest is not None and lowest < highest:
            declared = (min(lowest, 0), highest)
        elif 8 < bits < 16:
            declared = (0, 2**bits - 1)
    if declared is None:
        return None
    low, high = declared
    return declared if low <= values.min(initial=low) and values.max(initial=high) <= high else None


def _significant_bits(png: bytes | memoryview) -> int:
    """Return the significant bits by a PNG's sBIT chunk, the most of its colours; 16 without such a chunk."""
    at = 8
    while at + 12 < len(png) and (kind := bytes(png[at + 4 : at + 8])) != b"IDAT":
        size = int.from_bytes(png[at : at + 4], "big")
        if kind == b"sBIT" and 0 < size <= 4:
            return max(bytes(png[at + 8 : at + 8 + (1 if size < 3 else 3)]))
        at += 12 + size
    return 16


def _ppm_maximum(image: ImageFile.ImageFile) -> int:
    """Return the largest value by a PPM's header, which Pillow scales to 65535."""
    arguments: Any = image.tile[0][3] if image.tile and image.tile[0][0] == "ppm" else None
    return arguments[1] if isinstance(arguments, tuple) else 65535


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the values' format in the file: RGB;16B, ..."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _read_as(data: bytes | memoryview, raw_mode: str) -> np.ndarray:
    """Return the bytes of an image, decoded as if the file had `raw_mode`."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    tiles: Any = image.tile
    image.tile = [
        type(t)(*t[:3], (raw_mode, *t[3][1:]) if isinstance(t[3], tuple) else raw_mode) for t in tiles
    ]
    return np.asarray(image)


def _tiff(image: ImageFile.ImageFile, *tags: int | None) -> Any:
    """Return the first value of the first tag that a TIFF has; the last argument if it has none of them."""
    *numbers, default = tags
    known: Any = getattr(image, "tag_v2", {})
    for number in numbers if image.format == "TIFF" else ():
        if number in known:
            value = known[number]
            return value[0] if isinstance(value, tuple) else value
    return default
