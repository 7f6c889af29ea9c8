"""Image files of several frames (animations, stacks of pages); only the first frame is used."""

from __future__ import annotations

import io

from PIL import Image, ImageFile

from fourds_dist.data.decode.pixels import FORMATS
from fourds_dist.io.terminal import in_line

FIELDS = frozenset({"gif", "png", "tif", "tiff", "webp"})
"""Extensions of formats whose files may have several frames."""


def has_more_frames(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened image has several frames. Frames of an MPO do not count: they show one photograph."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def file_has_more_frames(data: bytes) -> bool:
    """Return whether an encoded image has several frames, like `has_more_frames`."""
    if data[:2] == b"\xff\xd8":  # JPEG
        return False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return has_more_frames(image)
    except Exception:  # decoding reports the fault
        return False


def frames_remark(num: int, first: str) -> list[str]:
    """Return a sentence about images of several frames; an empty list if there are none.

    Args:
        num: number of images of several frames.
        first: name of the first of them.
    """
    if not num:
        return []
    return [
        f"files of several frames (animations, stacks of pages): {num} (first: {in_line(first)}); the first frame of "
        "each is taken; save the other frames as files to use them, too"
    ]
