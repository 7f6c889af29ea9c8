"""Render icons on a white background: in their colours, or in black if they have none."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
from PIL import Image

from fourds_dist.data.datasets.icons.collection import Icon
from fourds_dist.io.extras import fix

THUMBNAIL_PIXELS = 16
"""Side of the thumbnails for the comparison of near duplicates, in pixels."""

INK = 24
"""Grey levels below white from which a pixel counts as drawn."""

LEAST_INK = 0.01
"""Share of drawn pixels below which an image is blank, e.g. white on white."""


def renderer() -> Any:
    """Import the package that renders SVG.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        return importlib.import_module("resvg_py")
    except ImportError:
        raise ValueError(f"icons need the renderer resvg, which is not installed: {fix('icons')}") from None


def render(icon: Icon, size: int) -> Image.Image | None:
    """Return the icon on a white square of `size` pixels, RGB; None: the SVG cannot be rendered."""
    resvg = renderer()
    left, top, width, height = icon.view_box
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="black" '
        f'viewBox="{left} {top} {width} {height}" width="{size}" height="{size}">{icon.body}</svg>'
    )
    try:
        png = resvg.svg_to_bytes(svg_string=svg, background="white", skip_system_fonts=True)
    except ValueError:
        return None
    return Image.open(io.BytesIO(png)).convert("RGB")


def is_blank(image: Image.Image) -> bool:
    ink = 255 - np.asarray(image, dtype=np.int16).min(axis=2)
    return bool((ink >= INK).mean() < LEAST_INK)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Return the drawing as 16 x 16 greys from 0 to 1, independent of position, scale and contrast.

    The drawing is cropped to the bounding box of its ink, and padded to a square.
    """
    grey = 255 - np.asarray(image.convert("L"), dtype=np.uint8)
    rows, columns = np.flatnonzero((grey >= INK).any(1)), np.flatnonzero((grey >= INK).any(0))
    if not len(rows):
        return np.zeros((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), np.float32)
    drawn = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(drawn.shape)
    square = np.zeros((side, side), np.uint8)
    y, x = (side - drawn.shape[0]) // 2, (side - drawn.shape[1]) // 2
    square[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    small = Image.fromarray(square).resize((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / max(np.asarray(small).max(), 1)
