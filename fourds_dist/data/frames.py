"""Image files of several frames (animations, stacks of pages), of which the first is taken everywhere."""

from __future__ import annotations

import io

from PIL import Image, ImageFile

from fourds_dist.data.pixels import FORMATS
from fourds_dist.terminal import in_line

FIELDS = frozenset({"gif", "png", "tif", "tiff", "webp"})
"""Extensions of formats whose files may hold further frames."""


def has_more_frames(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is opened has further frames. Those of an MPO are previews and views of one photograph."""
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def file_has_more_frames(data: bytes) -> bool:
    """The same of an encoded image."""
    if data[:2] == b"\xff\xd8":  # JPEG
        return False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return has_more_frames(image)
    except Exception:  # whoever decodes it says what is wrong
        return False


def frames_remark(num: int, first: str) -> list[str]:
    """A sentence on images of several frames, if there are any.

    Args:
        first: name of the first of them.
    """
    if not num:
        return []
    return [
        f"files of several frames (animations, stacks of pages): {num} (first: {in_line(first)}); the first frame of "
        "each is taken, so write the others out as files if they are meant"
    ]
