"""Digits over photographs, the recipe of MNIST-M (Ganin and Lempitsky, 2015).

An image is |crop of a photograph - digit|. The two photographs are part of scikit-learn. Each is cut into tiles a
little larger than an image. Every tile belongs to one split and a crop is inside its tile, so that no pixel of a test
background is in training images. The tiles of the splits alternate over both photographs, so that all splits show the
same scenes and validation accuracy predicts test accuracy. Half of both photographs is smooth (sky, leaf), where digits
would look almost like the source's, so the crop of greatest contrast among a few random ones is used.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

TILES = ("train", "test", "train", "val", "train")
"""Split of the tile with (column + 2 x row + photograph) modulo 5: every row and column of tiles has all splits."""

TILE_SIDES = 1.25
"""Least side of a tile, in sides of an image: large enough for many crops, small enough for many tiles."""

LARGEST_PX = 80
"""Largest side of an image, in pixels; leaves four rows of tiles."""

CANDIDATES = 3
"""Number of random crops, of which the one of greatest contrast becomes the background."""

NOTES = {"photographs": "scikit-learn load_sample_images", "tiles": TILES, "tile_sides": TILE_SIDES}
"""How the backgrounds were drawn, for the manifest's notes."""


def blend(digit: Image.Image, split: str, generator: np.random.Generator) -> Image.Image:
    """Return `digit` (RGB, white on black) blended over a crop of equal size from the split's tiles.

    Raises:
        ValueError: the image is larger than LARGEST_PX.
    """
    crops = [_crop(*digit.size, split, generator) for _ in range(CANDIDATES)]
    background = max(crops, key=lambda crop: crop.std(axis=(0, 1)).sum()).astype(np.int16)
    return Image.fromarray(np.abs(background - np.asarray(digit, dtype=np.int16)).astype(np.uint8))


@cache
def tiles(width: int, height: int, split: str) -> tuple[tuple[int, int, int, int, int], ...]:
    """Return the split's tiles for images of this size: (photograph, left, top, right, bottom), in pixels.

    Raises:
        ValueError: the image is larger than LARGEST_PX.
    """
    if max(width, height) > LARGEST_PX:
        raise ValueError(
            f"images of {width} x {height} pixels are too large for the tiles of the photographs; give a size of at "
            f"most {LARGEST_PX} pixels"
        )
    found = []
    for number, photograph in enumerate(_photographs()):
        tall, wide = (
            _tile_side(all_px, px) for all_px, px in zip(photograph.shape[:2], (height, width), strict=True)
        )
        for row in range(photograph.shape[0] // tall):
            for column in range(photograph.shape[1] // wide):
                if TILES[(column + 2 * row + number) % len(TILES)] == split:
                    left, top = column * wide, row * tall
                    found.append((number, left, top, left + wide, top + tall))
    return tuple(found)


def _tile_side(photograph_px: int, image_px: int) -> int:
    """Return the side of a tile for which a whole number of tiles covers nearly the whole photograph."""
    return photograph_px // int(photograph_px / (TILE_SIDES * image_px))


def _crop(width: int, height: int, split: str, generator: np.random.Generator) -> np.ndarray:
    """Return a random crop (height, width, 3) within one tile of the split."""
    candidates = tiles(width, height, split)
    number, left, top, right, bottom = candidates[generator.integers(len(candidates))]
    x = left + generator.integers(right - left - width + 1)
    y = top + generator.integers(bottom - top - height + 1)
    return _photographs()[number][y : y + height, x : x + width]


@cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)
