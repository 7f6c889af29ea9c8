"""The grey range of a data set: which values of its 16-bit, 32-bit and float images are black and white.

The range is determined from the whole data set, never from one image, and stored in the manifest (`grey_range`).
`measured` measures each image, and `Grey.joined` joins the measurements of images, shards and splits. The range is:

    declared by the files   PNG's sBIT, TIFF's BitsPerSample and MaxSampleValue, a PGM's largest value
    other integers          from 0, or the smallest value if that is negative, to the largest value
    other floats            0 to 1 if all values lie within, otherwise as for integers

8-bit images do not take part.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from PIL import Image

from fourds_dist.data.decode.pixels import FORMATS, deep_values, is_deep, said_range

GreyRange = tuple[float, float]
"""(the value that is black, the value that is white)"""

DEEP = frozenset({"png", "tif", "tiff", "ppm", "pgm"})
"""Extensions of formats that can hold more than 8 bits."""

Kind = Literal["16-bit", "32-bit", "float"]


def is_range(value: object) -> bool:
    """Return whether a value is two finite numbers, the lower one first."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        and value[0] < value[1]
    )


@dataclass(frozen=True)
class Grey:
    """Measurement of a set of images of more than 8 bits.

    Args:
        kind: kind of their values.
        num_images: number of images.
        lowest, highest: lowest and highest value.
        black, white: range that the files declare, or the range of the values of files that declare none.
        is_said: whether all files declare a range.
    """

    kind: Kind
    num_images: int
    lowest: float
    highest: float
    black: float
    white: float
    is_said: bool

    def joined(self, other: Grey) -> Grey:
        """Return the measurement of both sets together.

        Raises:
            ValueError: one set holds integers and the other floats, which have no common scale.
        """
        if (self.kind == "float") != (other.kind == "float"):
            raise ValueError(
                f"there are {self.num_images} {self.kind} images and {other.num_images} {other.kind} images, whose "
                "values have no common scale; convert them to one kind, or pack them as two data sets"
            )
        return Grey(
            "16-bit"
            if self.kind == other.kind == "16-bit"
            else "float"
            if self.kind == "float"
            else "32-bit",
            self.num_images + other.num_images,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            min(self.black, other.black),
            max(self.white, other.white),
            self.is_said and other.is_said,
        )

    @property
    def range(self) -> GreyRange:
        """(black, white) for reading all images of the set."""
        black, white = self.black, self.white
        if self.kind == "float" and not self.is_said and black >= 0 and white <= 1:
            return 0.0, 1.0
        if self.kind != "float" and not self.is_said and black == 0 and white < 255:
            return 0.0, 255.0  # 8 bits in a larger file
        return (black, white) if black < white else (black, black + 1)

    def remark(self, used: GreyRange) -> str:
        """Return a sentence about the values and the range, for the user.

        Args:
            used: range by which the images are read.
        """
        of = f"{self.lowest:g} to {self.highest:g}" if self.lowest < 0 else f"up to {self.highest:g}"
        whole = " of 65535" if self.kind == "16-bit" and self.lowest >= 0 else ""
        why = "set by --grey-range" if used != self.range else "declared by the files" if self.is_said else ""
        return (
            f"the {self.kind} images ({self.num_images}) use values {of}{whole}; black is {used[0]:g} and white is "
            f"{used[1]:g}{f', {why}' if why else ' (--grey-range sets another range)'}"
        )


def measured(data: bytes | memoryview) -> Grey | None:
    """Measure one encoded image; return None for 8-bit images and files that are no images.

    Raises:
        ValueError: an image of more than 8 bits cannot be decoded completely, or has values that are not finite.
    """
    if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n" and bytes(data[24:25]) != b"\x10":
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None  # not a readable image; decoding reports it
    if not is_deep(image):
        return None
    try:
        values, *_ = deep_values(data)
        declared = said_range(data, values)
    except (OSError, SyntaxError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    lowest, highest = float(values.min()), float(values.max())
    kind = (
        "float"
        if image.mode == "F"
        else "32-bit"
        if image.mode == "I" and _is_wide(lowest, highest)
        else "16-bit"
    )
    black, white = declared or (min(lowest, 0), max(highest, 0))
    return Grey(kind, 1, lowest, highest, float(black), float(white), declared is not None)


def joined(greys: Iterable[Grey | None]) -> Grey | None:
    """Return the measurement of all sets together; None if there is none.

    Raises:
        ValueError: see `Grey.joined`.
    """
    total: Grey | None = None
    for grey in greys:
        total = grey if total is None else total if grey is None else total.joined(grey)
    return total


def to_json(grey: Grey | None) -> str:
    """Return a measurement as JSON, for an index; empty for None."""
    return "" if grey is None else json.dumps(asdict(grey))


def from_json(text: str) -> Grey | None:
    """Return the measurement in the output of `to_json`."""
    return Grey(**json.loads(text)) if text else None


def _is_wide(lowest: float, highest: float) -> bool:
    return lowest < 0 or highest > 65535
