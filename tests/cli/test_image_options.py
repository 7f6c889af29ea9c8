"""The options --grey-range and --max-megapixels: their values, and their effect on a preprocessing."""

from __future__ import annotations

import argparse

import pytest

from fourds_dist.cli.image_options import ImageOptions, add_grey_range, add_max_megapixels
from fourds_dist.data.decode.pixels import MOST_PIXELS
from fourds_dist.data.stream.preprocessing import Preprocessing

TRAINED = Preprocessing(36, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), grey_range=(0.0, 255.0), max_megapixels=20)


def parsed(words: str) -> ImageOptions:
    parser = argparse.ArgumentParser()
    add_grey_range(parser, "x")
    add_max_megapixels(parser, "y")
    return ImageOptions.of(parser.parse_args(words.split()))


def test_given_values_replace_those_of_training() -> None:
    options = parsed("--grey-range -100 4095 --max-megapixels 0.25")
    assert options == ImageOptions((-100.0, 4095.0), 0.25)
    assert options.most_pixels == 250_000
    changed = options.changed(TRAINED)
    assert (changed.grey_range, changed.max_megapixels, changed.crop_px) == ((-100.0, 4095.0), 0.25, 32)
    only_range = parsed("--grey-range 0 1").changed(TRAINED)
    assert (only_range.grey_range, only_range.max_megapixels) == ((0.0, 1.0), 20)


def test_options_that_are_not_given_change_nothing() -> None:
    assert parsed("").changed(TRAINED) == TRAINED
    assert parsed("").most_pixels == MOST_PIXELS
    assert ImageOptions.of(argparse.Namespace()) == ImageOptions()  # a parser without these options


def test_the_smallest_limit_still_allows_one_pixel() -> None:
    assert parsed("--max-megapixels 1e-9").most_pixels == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grey-range 9 0", "--grey-range 9 0: give the lower number first"),
        ("--grey-range 5 5", "--grey-range 5 5: give the lower number first"),
        ("--grey-range 5 inf", "--grey-range 5 inf: give finite numbers, the lower number first"),
        ("--max-megapixels nan", "--max-megapixels nan: give a finite number above 0"),
        ("--max-megapixels -1", "--max-megapixels -1: give a finite number above 0"),
    ],
)
def test_impossible_values_are_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(words)
