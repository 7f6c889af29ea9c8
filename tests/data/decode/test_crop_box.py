"""Crops: boxes of the image's proportions, and random areas as torchvision draws them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fourds_dist.data.decode.crop_box import (
    CENTRE,
    NUM_TRIES,
    Box,
    Place,
    ResizeMode,
    crop_box,
    random_resized_places,
)
from fourds_dist.data.decode.decode import decode
from tests.data.deep_images import encoded

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def places(num: int, scale: tuple[float, float] = SCALE, ratio: tuple[float, float] = RATIO) -> np.ndarray:
    random = np.random.default_rng(0).random((num, 2 + 2 * NUM_TRIES))
    return random_resized_places(random, scale=scale, ratio=ratio)


def box(height: int, width: int, place: Place, mode: ResizeMode = "squeeze") -> Box:
    return crop_box(height, width, resize_px=64, crop_px=48, place=place, resize_mode=mode)


def test_the_shorter_side_decides_or_both_sides_are_squeezed() -> None:
    assert box(64, 128, CENTRE) == (8, 16, 48, 96)
    assert box(64, 128, CENTRE, "shortest_side") == (8, 40, 48, 48)
    assert box(128, 64, (0.0, 1.0), "shortest_side") == (0, 16, 48, 48)
    assert box(64, 128, (1.0, 1.0), "shortest_side") == (16, 80, 48, 48)
    assert box(64, 64, (0.3, 0.6), "shortest_side") == box(64, 64, (0.3, 0.6))
    assert box(1, 1000, CENTRE, "shortest_side") == (0, 500, 1, 1)


@pytest.mark.parametrize("shape", [(64, 64), (48, 100), (301, 97)])
def test_random_areas_ratios_and_places_are_torchvision_s(shape: tuple[int, int]) -> None:
    height, width = shape
    boxes = np.array([box(height, width, place) for place in places(3000).tolist()])
    transform = v2.RandomResizedCrop(8)
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    params = [transform.make_params([image]) for _ in range(3000)]
    expected = np.array([[p["top"], p["left"], p["height"], p["width"]] for p in params])
    for found, reference in zip(boxes.T, expected.T, strict=True):
        spread = reference.std() + 1e-9
        assert abs(found.mean() - reference.mean()) < 0.12 * spread + 1e-6
        assert abs(found.std() / spread - 1) < 0.1 or spread < 1e-6
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    assert boxes.min(0)[2:].min() >= 1


def test_an_image_of_extreme_shape_gets_the_central_crop_of_the_nearest_ratio() -> None:
    (place,) = places(1, scale=(0.9, 1.0)).tolist()
    assert box(10, 100, place) == (0, 43, 10, 13)
    assert box(100, 10, place) == (43, 0, 13, 10)
    transform = v2.RandomResizedCrop(8, scale=(0.9, 1.0))
    params = transform.make_params([torch.zeros(3, 10, 100)])
    assert [params[k] for k in ("top", "left", "height", "width")] == [0, 43, 10, 13]
    assert box(10, 12, [0.5, 0.5, *RATIO, *(1.0, 0.01) * NUM_TRIES]) == (0, 0, 10, 12)


def test_a_fixed_area_and_ratio() -> None:
    place = places(1, scale=(0.25, 0.25), ratio=(1.0, 1.0)).tolist()[0]
    assert box(80, 80, place)[2:] == (40, 40)
    low = [0.0, math.nextafter(1.0, 0.0), *place[2:]]
    assert box(80, 80, low)[:2] == (0, 40)


NOISE = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
WIDE = Image.fromarray(NOISE).resize((160, 100), Image.Resampling.BICUBIC)


def test_shortest_side_equals_torchvision_s_resize_and_central_crop() -> None:
    pixels = decode(encoded(WIDE, "PNG"), resize_px=50, crop_px=40, place=CENTRE, resize_mode="shortest_side")
    expected = v2.Compose([v2.Resize(50, antialias=True), v2.CenterCrop(40)])(
        v2.functional.pil_to_tensor(WIDE)
    )
    inner = (pixels.int() - expected.int()).abs()[:, 2:-2, 2:-2]  # at the edge `decode` sees the crop alone
    assert inner.float().mean() < 0.6
    squeezed = decode(encoded(WIDE, "PNG"), resize_px=50, crop_px=40, place=CENTRE)
    assert (squeezed.int() - expected.int()).abs().float().mean() > 5


def test_random_resized_crops_equal_torchvision_s() -> None:
    for place in places(20).tolist():
        pixels = decode(encoded(WIDE, "PNG"), resize_px=50, crop_px=40, place=place)
        top, left, height, width = box(100, 160, place)
        image = v2.functional.pil_to_tensor(WIDE)
        expected = v2.functional.resized_crop(image, top, left, height, width, [40, 40], antialias=True)
        assert (pixels.int() - expected.int()).abs().max() <= 1
