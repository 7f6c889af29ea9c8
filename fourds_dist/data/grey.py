"""The grey range of a data set: which values of its 16-bit, 32-bit and float images are black and white.

It is decided over the whole data set, never by one image, and kept in the manifest (`grey_range`). Each image is
measured alone (`measured`), and the measurements are joined (`Grey.joined`), shard by shard and split by split:

    what a file says of itself  PNG's sBIT, TIFF's BitsPerSample and MaxSampleValue, a PGM's largest value
    else integers               0, or the smallest value met below it, to the largest value met
    else floats                 0 to 1 where all lie within, else as integers

Images of 8 bits have no part in it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from PIL import Image

from fourds_dist.data.pixels import FORMATS, deep_values, is_deep, said_range

GreyRange = tuple[float, float]
"""(the value that is black, the value that is white)"""

DEEP = frozenset({"png", "tif", "tiff", "ppm", "pgm"})
"""Extensions of formats that can hold more than 8 bits."""

Kind = Literal["16-bit", "32-bit", "float"]


def is_range(value: object) -> bool:
    """Whether a value is two finite numbers, the lower one first."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        and value[0] < value[1]
    )


@dataclass(frozen=True)
class Grey:
    """What some images of one kind hold.

    Args:
        kind: of their values.
        num_images: how many there are.
        lowest, highest: of their values.
        black, white: as their files say, or their values where the files say nothing.
        is_said: whether all files say it.
    """

    kind: Kind
    num_images: int
    lowest: float
    highest: float
    black: float
    white: float
    is_said: bool

    def joined(self, other: Grey) -> Grey:
        """Both together.

        Raises:
            ValueError: integers and floats, whose values have no common scale.
        """
        if (self.kind == "float") != (other.kind == "float"):
            raise ValueError(
                f"there are {self.num_images} {self.kind} images and {other.num_images} {other.kind} ones, whose "
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
        """The range by which all are read."""
        black, white = self.black, self.white
        if self.kind == "float" and not self.is_said and black >= 0 and white <= 1:
            return 0.0, 1.0
        if self.kind != "float" and not self.is_said and black == 0 and white < 255:
            return 0.0, 255.0  # 8 bits in a larger file
        return (black, white) if black < white else (black, black + 1)

    def remark(self, used: GreyRange) -> str:
        """What a person should know of it.

        Args:
            used: the range by which the images are read.
        """
        of = f"{self.lowest:g} to {self.highest:g}" if self.lowest < 0 else f"up to {self.highest:g}"
        whole = " of 65535" if self.kind == "16-bit" and self.lowest >= 0 else ""
        why = "as --grey-range says" if used != self.range else "as the files say" if self.is_said else ""
        return (
            f"the {self.kind} images ({self.num_images}) use values {of}{whole}: read as {used[0]:g} to {used[1]:g}"
            f"{f', {why}' if why else ' (--grey-range gives another range)'}"
        )


def measured(data: bytes | memoryview) -> Grey | None:
    """What one encoded image holds; None for images of 8 bits.

    Raises:
        ValueError: an image of more than 8 bits that cannot be read whole, or with values that are not finite.
    """
    if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n" and bytes(data[24:25]) != b"\x10":
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None  # no image that can be opened; whoever decodes it says so
    if not is_deep(image):
        return None
    try:
        values, *_ = deep_values(data)
        said = said_range(data, values)
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
    black, white = said or (min(lowest, 0), max(highest, 0))
    return Grey(kind, 1, lowest, highest, float(black), float(white), said is not None)


def joined(greys: Iterable[Grey | None]) -> Grey | None:
    """All together; None where there is none.

    Raises:
        ValueError: see `Grey.joined`.
    """
    total: Grey | None = None
    for grey in greys:
        total = grey if total is None else total if grey is None else total.joined(grey)
    return total


def to_json(grey: Grey | None) -> str:
    """For an index; empty for None."""
    return "" if grey is None else json.dumps(asdict(grey))


def from_json(text: str) -> Grey | None:
    """What `to_json` gave."""
    return Grey(**json.loads(text)) if text else None


def _is_wide(lowest: float, highest: float) -> bool:
    return lowest < 0 or highest > 65535
