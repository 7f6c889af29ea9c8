"""PNG keeps every pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.png import png


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pixels_come_back(mode: str) -> None:
    channels = len(mode)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8).squeeze()
    data = png(Image.fromarray(pixels))
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", mode)
    np.testing.assert_array_equal(np.asarray(image), pixels)
    assert png(Image.fromarray(pixels)) == data
