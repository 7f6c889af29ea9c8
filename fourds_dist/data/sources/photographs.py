"""Digits over photographs, the recipe of MNIST-M (Ganin and Lempitsky, 2015).

An image is |crop of a photograph - digit|. The photographs are the two that scikit-learn ships. Each is cut into tiles
a little larger than an image. Every tile belongs to one split, and a crop stays inside its tile: no pixel of a
background that is tested was ever trained on. The tiles of the splits alternate over both photographs, so all three
splits show the same scenes and an accuracy on validation images says what to expect on test images. Half of both
photographs is smooth (sky, leaf) and would leave digits almost as plain as the source's, so the liveliest of a few
random crops is taken.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

TILES = ("train", "test", "train", "val", "train")
"""The split of tile (column + 2 x row + photograph) modulo 5: every row and every column of tiles has all splits."""

TILE_SIDES = 1.25
"""Least side of a tile, in sides of an image: room for many crops, yet small enough for many tiles."""

LARGEST_PX = 80
"""Largest side of an image, in pixels: four rows of tiles are left then."""

CANDIDATES = 3
"""Random crops of which the one of greatest contrast becomes the background."""

NOTES = {"photographs": "scikit-learn load_sample_images", "tiles": TILES, "tile_sides": TILE_SIDES}
"""What manifests say of how the backgrounds were drawn."""


def blend(digit: Image.Image, split: str, generator: np.random.Generator) -> Image.Image:
    """`digit` (RGB, white on black) blended over a crop of equal size from the split's tiles.

    Raises:
        ValueError: the image is larger than LARGEST_PX.
    """
    crops = [_crop(*digit.size, split, generator) for _ in range(CANDIDATES)]
    background = max(crops, key=lambda crop: crop.std(axis=(0, 1)).sum()).astype(np.int16)
    return Image.fromarray(np.abs(background - np.asarray(digit, dtype=np.int16)).astype(np.uint8))


@cache
def tiles(width: int, height: int, split: str) -> tuple[tuple[int, int, int, int, int], ...]:
    """The split's tiles for images of that size: (photograph, left, top, right, bottom), in pixels.

    Raises:
        ValueError: the image is larger than LARGEST_PX.
    """
    if max(width, height) > LARGEST_PX:
        raise ValueError(
            f"images of {width} x {height} pixels are too large for the tiles of the photographs; ask for images of "
            f"at most {LARGEST_PX} pixels"
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
    """Side of a tile, such that a whole number of tiles covers the photograph with little left over."""
    return photograph_px // int(photograph_px / (TILE_SIDES * image_px))


def _crop(width: int, height: int, split: str, generator: np.random.Generator) -> np.ndarray:
    """A random (height, width, 3) view of a photograph within one tile of the split."""
    mine = tiles(width, height, split)
    number, left, top, right, bottom = mine[generator.integers(len(mine))]
    x = left + generator.integers(right - left - width + 1)
    y = top + generator.integers(bottom - top - height + 1)
    return _photographs()[number][y : y + height, x : x + width]


@cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)
