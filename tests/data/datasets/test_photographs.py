"""Backgrounds of photographs: each split has tiles of its own, which show the same scenes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.photographs import blend, tiles


def test_backgrounds_of_a_split_come_from_its_tiles_only():
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    black = Image.new("RGB", (16, 16))
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        mine = [
            photographs[number][top:bottom, left:right]
            for number, left, top, right, bottom in tiles(16, 16, split)
        ]
        for _ in range(5):
            crop = np.asarray(blend(black, split, generator))
            assert any(_contains(tile, crop) for tile in mine)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (28, 28), (32, 32), (80, 80), (20, 64)])
def test_no_pixel_of_the_photographs_belongs_to_two_splits_and_every_split_has_both(size):
    num_splits = np.zeros((2, 427, 640), np.int8)
    shares = {}
    for split in ("train", "val", "test"):
        mine = np.zeros((2, 427, 640), bool)
        for number, left, top, right, bottom in tiles(*size, split):
            assert right - left >= size[0]
            assert bottom - top >= size[1]
            mine[number, top:bottom, left:right] = True
        assert mine.any(axis=(1, 2)).all()
        num_splits += mine
        shares[split] = mine.mean()
    assert num_splits.max() == 1
    assert num_splits.mean() > 0.8
    assert shares["val"] > 0.1
    assert shares["test"] > 0.1
    assert shares["train"] > 0.4


def test_the_splits_show_the_same_scenes():
    """Colour and contrast of the backgrounds differ less between splits than between images of one split."""
    black = Image.new("RGB", (32, 32))
    looks = {}
    for split in ("train", "val", "test"):
        generator = np.random.default_rng(0)
        crops = [np.asarray(blend(black, split, generator), dtype=float) for _ in range(600)]
        looks[split] = np.array([[*crop.mean(axis=(0, 1)), *crop.std(axis=(0, 1))] for crop in crops])
    spread = looks["train"].std(axis=0)
    for split in ("val", "test"):
        distance = np.abs(looks[split].mean(axis=0) - looks["train"].mean(axis=0)) / spread
        assert distance.max() < 0.35, f"{split}: {distance}"


def test_an_image_too_large_for_the_tiles_is_refused():
    with pytest.raises(ValueError, match="at most 80 pixels"):
        blend(Image.new("RGB", (96, 96)), "test", np.random.default_rng(0))


def _contains(stripe, crop):
    height, width = crop.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(stripe, (height, width, 3))[:, :, 0]
    corners = np.argwhere((windows[..., 0, 0, :] == crop[0, 0]).all(-1))
    return any((windows[y, x] == crop).all() for y, x in corners)
