"""The box of an image that becomes the training or evaluation crop, from the image's size and a place.

A place is a row of numbers, drawn before the image's size is known. Its length names the kind of crop:

    (down, right)                                      a crop of crop_px from the image resized to resize_px
    (down, right, least ratio, largest ratio,          a crop of random area and aspect ratio, which is resized to
     area 1, ratio 1, ..., area 10, ratio 10)          crop_px: the first of the tries that fits into the image

down and right are in [0, 1]: 0 is the upper or left edge, 0.5 the centre, 1 the lower or right edge. Areas are
fractions of the image, ratios are width / height of the crop. The second kind is torchvision's RandomResizedCrop, also
in its central crop if no try fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Place = Sequence[float]
"""See this module's docstring."""

ResizeMode = Literal["squeeze", "shortest_side"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("squeeze", "shortest_side")

CENTRE = (0.5, 0.5)
"""Place of the central crop, in evaluation."""
NUM_TRIES = 10


class Box(NamedTuple):
    """A part of an image, in whole pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_box(
    height: int,
    width: int,
    *,
    resize_px: int,
    crop_px: int,
    place: Place,
    resize_mode: ResizeMode = "squeeze",
) -> Box:
    """Return the part of an image of height x width pixels that is resized to crop_px x crop_px.

    Args:
        resize_px: side to which the image is resized before cropping, except for crops of random area.
        resize_mode: `squeeze`: both sides are resized to resize_px. `shortest_side`: the shorter one, in proportion.
    """
    if len(place) > len(CENTRE):
        return _random_resized(height, width, place)
    rows, columns = (height, width) if resize_mode == "squeeze" else (min(height, width),) * 2
    tall, wide = (max(1, round(side * crop_px / resize_px)) for side in (rows, columns))
    return Box(round((height - tall) * place[0]), round((width - wide) * place[1]), tall, wide)


def random_resized_places(
    random: np.ndarray, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Return (B, 4 + 2 NUM_TRIES) places of crops of random area.

    Args:
        random: (B, 2 + 2 NUM_TRIES) uniform numbers in [0, 1); the first two are down and right.
        scale: range of the areas, drawn uniformly.
        ratio: range of the ratios, whose logarithm is drawn uniformly.
    """
    areas = scale[0] + (scale[1] - scale[0]) * random[:, 2::2]
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * random[:, 3::2])
    tries = np.stack([areas, ratios], axis=2).reshape(len(random), -1)
    return np.concatenate([random[:, :2], np.broadcast_to(ratio, (len(random), 2)), tries], axis=1)


def _random_resized(height: int, width: int, place: Place) -> Box:
    down, right, least, largest, *tries = place
    for area, ratio in zip(tries[::2], tries[1::2], strict=True):
        tall, wide = (round(math.sqrt(area * height * width * r)) for r in (1 / ratio, ratio))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = (int((s - t + 1) * at) for s, t, at in ((height, tall, down), (width, wide, right)))
            return Box(min(top, height - tall), min(left, width - wide), tall, wide)
    tall, wide = height, width
    if width / height < least:
        tall = max(1, round(width / least))
    elif width / height > largest:
        wide = max(1, round(height * largest))
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)
