"""Digits over photographs, the recipe of MNIST-M (Ganin and Lempitsky, 2015).

An image is |crop of a photograph - digit|. The photographs are the two that scikit-learn ships. Each is cut into
upright stripes and every stripe belongs to one split: no pixel of a background that is tested was ever trained on,
yet all splits see all parts of the scenes. Half of both photographs is smooth (sky, leaf) and would leave digits
almost as plain as the source's, so the liveliest of a few random crops is taken.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

STRIPES = ("train", "test", "train", "val", "train", "test", "train", "train")
"""The split of each of the equally wide stripes of a photograph, from left to right."""

CANDIDATES = 3
"""Random crops of which the one of greatest contrast becomes the background."""


def blend(digit: Image.Image, split: str, generator: np.random.Generator) -> Image.Image:
    """`digit` (RGB, white on black) blended over a crop of equal size from the split's stripes."""
    crops = [_crop(*digit.size, split, generator) for _ in range(CANDIDATES)]
    background = max(crops, key=lambda crop: crop.std(axis=(0, 1)).sum()).astype(np.int16)
    return Image.fromarray(np.abs(background - np.asarray(digit, dtype=np.int16)).astype(np.uint8))


def _crop(width: int, height: int, split: str, generator: np.random.Generator) -> np.ndarray:
    """A random (height, width, 3) view of a photograph within one stripe of the split."""
    photographs = _photographs()
    photograph = photographs[generator.integers(len(photographs))]
    stripe_width = photograph.shape[1] // len(STRIPES)
    if width > stripe_width or height > len(photograph):
        raise ValueError(
            f"images of {width} x {height} pixels do not fit a stripe of {stripe_width} x {len(photograph)} pixels "
            f"of the photographs; ask for images of at most {stripe_width} pixels"
        )
    stripe = generator.choice([i for i, owner in enumerate(STRIPES) if owner == split])
    x = stripe * stripe_width + generator.integers(stripe_width - width + 1)
    y = generator.integers(len(photograph) - height + 1)
    return photograph[y : y + height, x : x + width]


@cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)
