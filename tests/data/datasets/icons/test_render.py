"""Icons are drawn on white in their colours or in black, and compared as thumbnails of their ink."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.icons.collection import Icon
from fourds_dist.data.datasets.icons.render import is_blank, render, renderer, thumbnail
from fourds_dist.io.extras import fix


def icon(body: str, view_box: tuple[float, float, float, float] = (0, 0, 4, 4)) -> Icon:
    return Icon("s", "n", "glyph", "n", body, view_box)


def drawn(body: str, *view_box: float, size: int = 4) -> np.ndarray:
    image = render(icon(body, view_box or (0, 0, 4, 4)), size)  # pyright: ignore
    assert image is not None
    assert (image.size, image.mode) == ((size, size), "RGB")
    return np.asarray(image)


def test_pixels() -> None:
    pytest.importorskip("resvg_py")
    left = drawn('<path fill="currentColor" d="M0 0h2v4H0z"/>')
    assert (left[:, :2] == 0).all()
    assert (left[:, 2:] == 255).all()
    coloured = drawn('<path fill="#0f0" d="M0 0h4v4H0z"/>', size=8)
    assert (coloured == (0, 255, 0)).all()
    moved = drawn('<path d="M0 0h2v4H0z"/>', -2, 0, 4, 4)
    assert (moved[:, 2:] == 0).all()
    assert (moved[:, :2] == 255).all()
    assert (
        render(icon('<path d="M0 0h9v9"><animate attributeName="d"/>'), 4) is None
    )  # the element is not closed


def test_without_the_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ValueError, match="icons need the renderer resvg, which is not installed") as error:
        renderer()
    assert fix("icons") in str(error.value)


def test_blank_images() -> None:
    white = Image.new("RGB", (20, 20), "white")
    assert is_blank(white)
    assert is_blank(Image.new("RGB", (20, 20), (232, 232, 232)))  # 23 levels below white
    assert not is_blank(Image.new("RGB", (20, 20), (255, 255, 231)))  # one channel suffices
    for number, blank in ((3, True), (4, False)):  # of 400 pixels
        dotted = np.asarray(white).copy()
        dotted[0, :number] = 0
        assert is_blank(Image.fromarray(dotted)) == blank


def test_thumbnails_depend_on_the_shape_only() -> None:
    def square(left: int, side: int, grey: int) -> Image.Image:
        pixels = np.full((64, 64, 3), 255, np.uint8)
        pixels[8 : 8 + side, left : left + side] = grey
        pixels[8 : 8 + side // 2, left : left + side // 2] = 255
        return Image.fromarray(pixels)

    small, large = thumbnail(square(0, 16, 0)), thumbnail(square(20, 32, 200))
    assert (small.shape, small.dtype) == ((16, 16), np.float32)
    np.testing.assert_array_equal(small, large)
    assert (small[:8, :8] == 0).all()
    assert small[8:].min() == small[:8, 8:].min() == 1
    bar = np.full((40, 40, 3), 255, np.uint8)
    bar[5:13, 3:35] = 0  # a quarter of the square's 32 rows, in its middle
    assert thumbnail(Image.fromarray(bar)).mean(axis=1).tolist() == [0] * 6 + [1] * 4 + [0] * 6
    assert not thumbnail(Image.new("RGB", (9, 9), "white")).any()
