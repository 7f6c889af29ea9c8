"""Options --grey-range and --max-megapixels of commands that read images."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fourds_dist.data.decode.grey import GreyRange, is_range
from fourds_dist.data.decode.pixels import MOST_PIXELS

if TYPE_CHECKING:
    from fourds_dist.data.stream.preprocessing import Preprocessing


def add_grey_range(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option --grey-range; `default` describes the default in --help."""
    parser.add_argument(
        "--grey-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"black and white values of images of more than 8 bits, e.g. 0 4095 (default: {default})",
    )


def add_max_megapixels(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option --max-megapixels; `default` describes the default in --help."""
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help=f"largest size of an image, in megapixels (default: {default})",
    )


@dataclass(frozen=True)
class ImageOptions:
    """Values of the options; None for options that are not given."""

    grey_range: GreyRange | None = None
    max_megapixels: float | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> ImageOptions:
        """Return the parsed options.

        Raises:
            ValueError: invalid values.
        """
        grey_range, megapixels = (getattr(options, name, None) for name in ("grey_range", "max_megapixels"))
        if grey_range is not None and not is_range(grey_range := tuple(grey_range)):
            finite = "" if all(map(math.isfinite, grey_range)) else "finite numbers, "
            raise ValueError(
                f"--grey-range {grey_range[0]:g} {grey_range[1]:g}: give {finite}the lower number first"
            )
        if megapixels is not None and not 0 < megapixels < math.inf:
            raise ValueError(f"--max-megapixels {megapixels:g}: give a finite number above 0")
        return cls(grey_range, megapixels)

    @property
    def most_pixels(self) -> int:
        """Number of pixels above which images are refused."""
        return MOST_PIXELS if self.max_megapixels is None else max(1, round(self.max_megapixels * 1e6))

    def changed(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return the preprocessing with the values of the options."""
        return replace(
            preprocessing,
            grey_range=self.grey_range or preprocessing.grey_range,
            max_megapixels=self.max_megapixels or preprocessing.max_megapixels,
        )
