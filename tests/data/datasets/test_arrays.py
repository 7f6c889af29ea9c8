"""Domains of arrays: published test images stay test images, and each image keeps its label."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.arrays import array_domain
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example

CLASSES = ("ant", "bee")
IMAGES = np.arange(20 * 12, dtype=np.uint8).reshape(20, 3, 4)
LABELS = np.array([0, 1] * 10)
PARTS = {"train": (IMAGES, LABELS), "test": (IMAGES[:3], LABELS[1:4])}


def made(seed: int = 1, **more: object) -> Domain:
    return array_domain("d", CLASSES, PARTS, val_fraction=0.2, seed=seed, notes={"origin": "x"}, **more)  # pyright: ignore


def pixels(example: Example) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(example.read())))


def test_images_labels_and_splits() -> None:
    domain = made()
    examples = list(domain)
    assert domain.notes == {"origin": "x", "val_fraction": 0.2, "seed": 1}
    assert [e.key for e in examples] == [f"train-{n:06}" for n in range(20)] + [
        f"test-{n:06}" for n in range(3)
    ]
    assert [e.label for e in examples] == [*["ant", "bee"] * 10, "bee", "ant", "bee"]
    assert Counter((e.split, e.label) for e in examples[:20]) == {
        ("train", "ant"): 8, ("train", "bee"): 8, ("val", "ant"): 2, ("val", "bee"): 2,
    }  # fmt: skip
    assert {e.split for e in examples[20:]} == {"test"}
    np.testing.assert_array_equal(pixels(examples[7]), np.repeat(IMAGES[7][..., None], 3, axis=2))
    assert list(made()) == examples
    assert [e.split for e in made(seed=2)] != [e.split for e in examples]


def test_each_image_is_changed_by_its_split_and_position() -> None:
    seen = []

    def look(image: Image.Image, split: str, position: int) -> Image.Image:
        seen.append((split, position))
        return Image.new("RGB", image.size, (position, 0, 9))

    examples = list(made(look=look))
    assert seen == [(e.split, int(e.key[-6:])) for e in examples]
    assert (pixels(examples[5]) == (5, 0, 9)).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:-1], "d, train part: 20 images but 19 labels"),
        (LABELS + 1, "d, train part: labels from 1 to 2, but 2 classes"),
        (LABELS - 1, "d, train part: labels from -1 to 0, but 2 classes"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        array_domain("d", CLASSES, PARTS | {"train": (IMAGES, labels)}, val_fraction=0, seed=0, notes={})
