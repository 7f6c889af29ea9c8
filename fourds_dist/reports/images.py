"""Images and feature maps of a report, as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fourds_dist.reports.charts import any_script, cut

MOST_PX = 160
LEAST_PX = 96


def png(pixels: np.ndarray) -> bytes:
    """Encode (3, H, W) or (H, W, 3) uint8 as PNG; large images are reduced, small ones enlarged by whole factors."""
    image = Image.fromarray(np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else pixels)
    side = max(image.size)
    if side > MOST_PX:
        image.thumbnail((MOST_PX, MOST_PX))
    elif side < LEAST_PX:
        times = -(-LEAST_PX // side)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def uri(data: bytes) -> str:
    """Return a data URI of PNG bytes."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def strength(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Colour maps (H, W) of values >= 0 as (H, W, 3) uint8 on one scale, with cividis (safe for colour blindness)."""
    top = max(float(m.max()) for m in maps) or 1.0
    return [_coloured(m / top, "cividis") for m in maps]


def change(gain: np.ndarray, reach: float) -> np.ndarray:
    """Colour a map of gains: blue below 0, white at 0, red above 0; saturated at +-reach."""
    return _coloured(0.5 + gain / (2 * reach), "RdBu_r")


def sheet(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> bytes:
    """Draw rows of captioned images on one sheet and return it as PNG.

    Args:
        rows: (name of the row, images as (caption, (H, W, 3) or (3, H, W) uint8)).
    """
    with mpl.rc_context({"text.parse_math": False}), any_script():
        return _sheet(title, rows)


def _sheet(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]) -> bytes:
    columns = max(len(pictures) for _, pictures in rows)
    figure = Figure(figsize=(1.5 * columns + 0.6, 1.75 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(axes, rows, strict=True):
        for column, frame in enumerate(line):
            frame.set_axis_off()
            if column < len(pictures):
                caption, pixels = pictures[column]
                frame.imshow(
                    np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else pixels, interpolation="nearest"
                )
                frame.set_title(cut(caption, 28), fontsize=7)
        line[0].text(
            -0.08, 0.5, name, transform=line[0].transAxes, rotation=90, va="center", ha="right", fontsize=8
        )
    figure.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, facecolor="white")
    return out.getvalue()


def _coloured(values: np.ndarray, name: str) -> np.ndarray:
    return (mpl.colormaps[name](np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)
