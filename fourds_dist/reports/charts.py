"""Charts of a report, drawn with Matplotlib: SVG for the page, and a PNG file.

The page embeds each SVG as an image; its text stays text and is shown in a font of the browser. Series differ by dash
and by colour; the colours (after Okabe and Ito) are distinguishable with every kind of colour blindness, and have
enough contrast to white.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

SERIES = ["#0072b2", "#bf5200", "#00795a", "#a8447f", "#7a6200", "#5b5f66"]
GAIN, LOSS, INK, SOFT, LINE = SERIES[0], SERIES[1], "#1c1f23", "#5f666f", "#d9dde2"
DASHES: list[Any] = ["-", *((0, dash) for dash in ((5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1), (10, 3)))]

WIDTH_IN, HEIGHT_IN = 4.4, 2.9
CELL_IN = 1.4
"""Width of a picture on a sheet."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # class names may contain $
    "svg.hashsalt": "fourds_dist",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
}

Line = tuple[Sequence[float], Sequence[float]]
"""(x, y)"""
FAR = 6
"""Ratio of the largest and the smallest x from which the x-axis of points is logarithmic."""
PLACES: list[tuple[tuple[float, float], Any, Any]] = [
    ((7, 3), "left", "bottom"),
    ((7, -3), "left", "top"),
    ((-7, 3), "right", "bottom"),
    ((-7, -3), "right", "top"),
]
"""(offset in points, horizontal and vertical alignment) of a name beside its point, in the order of preference."""


class Point(NamedTuple):
    """A point with the interval of its y."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    name: str
    """Name of the PNG file, without extension."""
    title: str
    words: str
    """Text alternative for screen readers."""
    width_in: float
    svg: bytes
    png: bytes


@mpl.rc_context(STYLE)
def lines(
    name: str,
    title: str,
    series: Mapping[str, Line],
    *,
    x: str = "epoch",
    percent: bool = False,
    log: bool = False,
    least: float | None = None,
    reference: tuple[str, Line] | None = None,
) -> Chart:
    """Draw curves over x.

    Args:
        percent: y is a proportion, shown in percent.
        log: logarithmic y-axis, if there are several values above zero.
        least: the y-axis starts at this value or below.
        reference: (name, line) to compare the curves with.
    """
    figure, axes = blank(HEIGHT_IN + 0.17 * ((len(series) + 1) // 2))
    for i, (label, (xs, ys)) in enumerate(series.items()):
        dash = DASHES[(i + i // len(SERIES)) % len(DASHES)]
        axes.plot(xs, ys, marker="o" if len(xs) <= 15 else "", markersize=3.5, linestyle=dash,
                  color=SERIES[i % len(SERIES)], label=cut(label, 30))  # fmt: skip
    if reference is not None:
        axes.plot(*reference[1], color=SOFT, linewidth=1, linestyle=(0, (2, 2)), label=reference[0])
    above = [y for _, ys in series.values() for y in ys if y > 0]
    if log and len(set(above)) > 1:
        axes.set_yscale("log", nonpositive="mask")
        subs = (1,) if max(above) > 100 * min(above) else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    if least is not None:
        axes.set_ylim(bottom=min(least, axes.get_ylim()[0]))
    axes.set_xlabel(x)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=axes.get_xlim()[1] > 2))
    legend(figure, axes)
    ends = ", ".join(f"{label} ends at {ys[-1]:.3g}" for label, (_, ys) in series.items() if len(ys))
    return finished(name, title, f"{title} by {x}: {ends}", figure)


@mpl.rc_context(STYLE)
def scatter(
    name: str,
    title: str,
    points: Mapping[str, Point],
    *,
    x: str,
    y: str,
    percent: bool = False,
    plain: Collection[str] = (),
) -> Chart:
    """Draw named points with intervals. The x-axis is logarithmic if the points are far apart.

    Args:
        percent: y is a proportion, shown in percent.
        plain: names of points to compare the others with, drawn in grey.
    """
    figure, axes = blank(1.25 * HEIGHT_IN, width=1.6 * WIDTH_IN)
    if max(p.x for p in points.values()) > FAR * min(p.x for p in points.values()) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    for label, point in points.items():
        reach = ([point.y - point.low], [point.high - point.y])
        colour, marker = (SOFT, "s") if label in plain else (SERIES[0], "o")
        axes.errorbar([point.x], [point.y], reach, fmt=marker, color=colour, elinewidth=1, capsize=2)
    axes.margins(x=0.22, y=0.12)
    if percent:
        axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _label(figure, axes, points)
    listed = ", ".join(f"{label} {point.y:.3g} at {point.x:.3g}" for label, point in points.items())
    return finished(name, title, f"{title}: {listed}", figure)


def _label(figure: Figure, axes: Axes, points: Mapping[str, Point]) -> None:
    """Write each point's name beside it, where it overlaps the fewest other names, points and intervals."""
    figure.draw_without_rendering()  # the layout and the size of texts are known afterwards
    taken: list[Bbox] = []
    for point in points.values():
        left, low = axes.transData.transform((point.x, point.y)) - 4
        taken.append(Bbox.from_bounds(float(left), float(low), 8, 8))
        (x, bottom), (_, top) = (axes.transData.transform((point.x, end)) for end in (point.low, point.high))
        taken.append(Bbox.from_extents(x - 1, bottom, x + 1, top))
    for label, point in points.items():
        tried = []
        for offset, side, above in PLACES:
            text = axes.annotate(
                cut(label, 30), (point.x, point.y), offset, textcoords="offset points", ha=side, va=above,
                fontsize=8.5,
            )  # fmt: skip
            text.set_in_layout(False)
            box = text.get_window_extent()
            outside = not axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
            tried.append((outside + sum(box.overlaps(other) for other in taken), len(tried), text, box))
        _, chosen, _, box = min(tried, key=lambda each: each[:2])
        taken.append(box)
        for _, number, text, _ in tried:
            if number != chosen:
                text.remove()


@mpl.rc_context({**STYLE, "axes.grid": False})
def confusion(name: str, title: str, labels: Sequence[str], counts: np.ndarray) -> Chart:
    """Draw a confusion matrix: true classes as rows, predicted classes as columns, shaded by share of the row."""
    size = len(labels)
    side = max(3.2, 0.34 * size + 1.1)
    figure, axes = blank(side, width=side)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    colours = np.where(np.eye(size, dtype=bool)[..., None], to_rgb(SERIES[0]), to_rgb(SERIES[1]))
    axes.imshow(np.dstack([colours, np.where(counts > 0, 0.1 + 0.45 * shares**0.6, 0)]), interpolation="none")
    for i, j in np.argwhere(counts):
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=7.5 if size <= 15 else 6)
    is_long = max(map(len, labels)) > 3
    axes.set_xticks(range(size), [cut(label) for label in labels], rotation=90 if is_long else 0)
    axes.set_yticks(range(size), [cut(label) for label in labels])
    axes.tick_params(labelcolor=INK)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    i, j = divmod(int(wrong.argmax()), size)
    summary = "no errors"
    if wrong.any():
        summary = f"most frequent error: {labels[i]} predicted as {labels[j]}, {wrong[i, j]} times"
    return finished(name, title, f"{title}: {summary}", figure)


@mpl.rc_context(STYLE)
def sheet(
    name: str, title: str, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], *, words: str
) -> Chart:
    """Draw rows of captioned pictures on one sheet.

    Args:
        rows: (name of the row, pictures as (caption, (H, W, 3) uint8 or (H, W, 4) in [0, 1])). A caption may have
            several lines; lines are cut to 24 characters.
    """
    captions = [caption for _, pictures in rows for caption, _ in pictures]
    height = 1.03 + 0.075 * max(len(caption.splitlines()) for caption in captions)
    columns = max(len(pictures) for _, pictures in rows)
    figure, axes = blank(CELL_IN * height * len(rows), width=CELL_IN * (columns + 0.15))
    for line, (row, pictures) in enumerate(rows):
        top = height * line
        axes.text(-0.04, top + 0.47, cut(row), rotation=90, ha="right", va="center", fontsize=8)
        for left, (caption, pixels) in enumerate(pictures):
            axes.imshow(pixels, extent=(left, left + 0.94, top + 0.94, top))
            text = "\n".join(cut(words, 24) for words in caption.splitlines())
            axes.text(left, top + 0.97, text, va="top", fontsize=6.5)
    axes.set_xlim(-0.15, columns)
    axes.set_ylim(height * len(rows), 0)
    axes.set_axis_off()
    return finished(name, title, words, figure)


def blank(height: float, *, width: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """Return an empty figure of `width` x `height` inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    return figure, axes


def legend(figure: Figure, axes: Axes) -> None:
    """Add a legend below the axes if there is more than one series."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower left", ncols=2, handlelength=2.6, columnspacing=1.2)


def finished(name: str, title: str, words: str, figure: Figure) -> Chart:
    """Render a figure as SVG and, with its title, as PNG."""
    svg, png = io.BytesIO(), io.BytesIO()
    engine = figure.get_layout_engine()
    with warnings.catch_warnings():  # the browser has fonts for all scripts; PNGs show boxes
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from (current )?font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        # With a layout engine, or a tight box, each file would take two layouts and two drawings.
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(svg, format="svg", dpi=130, metadata={"Date": None, "Creator": None})
        heading = figure.suptitle(title, x=0.02, y=1, ha="left", va="bottom", fontsize=10, fontweight="bold")
        extent = heading.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        # Without a layout, parts may lie outside the figure.
        area = "tight" if engine is None else Bbox.union([figure.bbox_inches, extent]).padded(0.1)
        figure.savefig(png, format="png", dpi=150, facecolor="white", bbox_inches=area)
    return Chart(name, title, words, figure.get_figwidth(), svg.getvalue(), png.getvalue())


def cut(label: str, most: int = 18) -> str:
    """Return a label of at most `most` characters."""
    return label if len(label) <= most else label[: most - 1] + "…"
