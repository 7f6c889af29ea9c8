"""The quickstart's two domains, made offline from the digits and photographs in scikit-learn.

    digits          1,797 handwritten digits of 8 x 8 pixels, enlarged, white on black: the source
    digits-photos   the same digits blended over crops of two photographs (the MNIST-M recipe): the target

A digit is in the same split in both domains, so that no teacher trains on a digit of the target's test split. The tiles
of the photographs are split as well.

    python -m fourds_dist.pack digits DEST
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.photographs import NOTES, blend
from fourds_dist.data.datasets.png import png
from fourds_dist.data.datasets.splits import stratified

CLASSES = tuple("0123456789")


VAL_FRACTION, TEST_FRACTION = 0.1, 0.2


def digits(*, size: int = 32, crops_per_digit: int = 4, seed: int = 42) -> tuple[Domain, Domain]:
    """Return both domains, source first.

    Args:
        size: side of the square images, in pixels.
        crops_per_digit: number of images, with different backgrounds, of every training digit of the target; digits of
            the other splits have one image, so that each counts once.
        seed: seed of the splits and backgrounds; equal arguments give equal images.
    """
    notes = {"origin": "scikit-learn load_digits", "size": size, "seed": seed}
    photos = {**NOTES, "crops_per_digit": crops_per_digit}
    return (
        Domain("digits", CLASSES, lambda: _plain(size, seed), notes=notes),
        Domain(
            "digits-photos", CLASSES, lambda: _over_photos(size, crops_per_digit, seed), notes=notes | photos
        ),
    )


def _plain(size: int, seed: int) -> Iterator[Example]:
    for index, label, split, digit in _identities(size, seed):
        yield Example(f"{index:04}", png(digit), "png", label, split)


def _over_photos(size: int, crops_per_digit: int, seed: int) -> Iterator[Example]:
    for index, label, split, digit in _identities(size, seed):
        for crop in range(crops_per_digit if split == "train" else 1):
            # One seed per image, so that an image does not depend on the other images.
            image = blend(digit, split, np.random.default_rng((seed, index, crop)))
            yield Example(f"{index:04}-{crop}", png(image), "png", label, split)


def _identities(size: int, seed: int) -> Iterator[tuple[int, str, str, Image.Image]]:
    """(index in load_digits, class, split, RGB image) of every digit."""
    from sklearn.datasets import load_digits

    pixels, targets = map(np.asarray, load_digits(return_X_y=True))
    labels = [CLASSES[target] for target in targets]
    splits = stratified(labels, val_fraction=VAL_FRACTION, test_fraction=TEST_FRACTION, seed=seed)
    for index, (values, label, split) in enumerate(zip(pixels, labels, splits, strict=True)):
        # Values are from 0 to 16.
        grey = Image.fromarray((values.reshape(8, 8) * (255 / 16)).round().astype(np.uint8))
        yield index, label, split, grey.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
