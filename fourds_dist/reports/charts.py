"""Charts of a report, drawn with Matplotlib: SVG for the page, and a PNG file.

In the SVG every colour is replaced by a CSS variable of the page (`PALETTE`), so that one drawing serves the light and
the dark theme; text stays text, in the page's font. Series differ by dash and by colour; the colours (after Okabe and
Ito) are distinguishable with every kind of colour blindness, and have enough contrast to the background.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

PALETTE = {
    "--s1": ("#0072b2", "#62b5ea"),
    "--s2": ("#bf5200", "#ff9a56"),
    "--s3": ("#00795a", "#3fcf9f"),
    "--s4": ("#a8447f", "#ef9fcd"),
    "--s5": ("#7a6200", "#e6c84a"),
    "--s6": ("#5b5f66", "#b4bac2"),
    "--ink": ("#1c1f23", "#e8eaed"),
    "--soft": ("#5f666f", "#a3abb5"),
    "--line": ("#d9dde2", "#3a4048"),
}
"""CSS variable -> colour in the light theme (also used in PNGs) and in the dark theme."""

SERIES = [light for name, (light, _) in PALETTE.items() if name.startswith("--s") and name != "--soft"]
GAIN, LOSS, INK, SOFT, LINE = SERIES[0], SERIES[1], *(PALETTE[n][0] for n in ("--ink", "--soft", "--line"))
DASHES: list[tuple[float, ...] | None] = [None, (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1), (10, 3)]

WIDTH_IN, HEIGHT_IN = 4.4, 2.9
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

Interval = tuple[float, float]
Line = tuple[Sequence[float], Sequence[float]]
"""(x, y)"""


@dataclass(frozen=True)
class Chart:
    """A drawn chart."""

    name: str
    """Name of the PNG file, without extension."""
    title: str
    words: str
    """Text alternative for screen readers."""
    svg: str
    png: bytes


def lines(
    name: str,
    title: str,
    series: Mapping[str, Line],
    *,
    x: str = "epoch",
    percent: bool = False,
    log: bool = False,
    least: float | None = None,
    reference: tuple[str, float] | None = None,
) -> Chart:
    """Draw curves over x.

    Args:
        percent: y is a proportion, shown in percent.
        log: logarithmic y-axis, if any value is above zero.
        least: the y-axis starts at this value or below.
        reference: horizontal reference line, as (name, y).
    """
    with mpl.rc_context(STYLE):
        figure, axes = blank(HEIGHT_IN + 0.17 * ((len(series) + 1) // 2))
        for i, (label, (xs, ys)) in enumerate(series.items()):
            colour, dash = SERIES[i % len(SERIES)], DASHES[(i + i // len(SERIES)) % len(DASHES)]
            marker = "o" if len(xs) <= 12 else ""
            drawn = axes.plot(xs, ys, color=colour, label=cut(label, 30), marker=marker, markersize=3.5)[0]
            if dash is not None:
                drawn.set_dashes(dash)
        if reference is not None:
            axes.axhline(reference[1], color=SOFT, linewidth=1, linestyle=(0, (2, 2)), label=reference[0])
        above = [y for _, ys in series.values() for y in ys if y > 0]
        if log and above:
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


def intervals(
    name: str, title: str, rows: Mapping[str, tuple[float, Interval]], *, reference: tuple[str, float]
) -> Chart:
    """Draw proportions as dots with confidence intervals, one row each; `reference` is a vertical line (name, x)."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(0.6 + 0.48 * len(rows))
        for y, (row, (value, (low, high))) in enumerate(rows.items()):
            best = value == max(v for v, _ in rows.values())
            colour, weight = (SERIES[0], "bold") if best else (SERIES[5], "normal")
            axes.plot([low, high], [y, y], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
            axes.plot([value], [y], marker="o", color=colour, markersize=6.5)
            beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(f"{value:.1%}", (high, y), fontweight=weight, **beside)
            axes.text(0, y - 0.38, cut(row, 40), va="center", fontsize=9, fontweight=weight)
            axes.plot([reference[1]] * 2, [y - 0.16, y + 0.16], color=SOFT, linewidth=1.5)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.set_xlim(0, 1.14)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(f"accuracy (vertical line: {reference[0]})")
        values = "; ".join(
            f"{row} {v:.1%} ({low:.1%} to {high:.1%})" for row, (v, (low, high)) in rows.items()
        )
        return finished(name, title, f"{title}: {values}; {reference[0]} {reference[1]:.1%}", figure)


def gains(name: str, title: str, labels: Sequence[str], values: Sequence[float], *, baseline: str) -> Chart:
    """Draw gains (bars to the right) and losses (bars to the left) over a baseline, the largest gain on top."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(0.85 + 0.24 * max(4, len(labels)))
        order: list[int] = np.argsort(values, kind="stable").tolist()
        for y, i in enumerate(order):
            value = values[i]
            axes.barh(y, value, color=GAIN if value >= 0 else LOSS, height=0.68)
            axes.annotate(
                f"{100 * value:+.0f}" if round(100 * value) else "0",
                (value, y), xytext=(3 if value >= 0 else -3, 0), textcoords="offset points",
                va="center", ha="left" if value >= 0 else "right", fontsize=8, color=SOFT,
            )  # fmt: skip
        axes.set_yticks(range(len(order)), [cut(labels[i]) for i in order])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.14)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol="", decimals=None))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"difference in percentage points\nbaseline: {cut(baseline, 30)}")
        differences = ", ".join(f"{labels[i]} {100 * values[i]:+.0f}" for i in reversed(order))
        return finished(name, title, f"{title}, in percentage points: {differences}", figure)


def confusion(name: str, title: str, labels: Sequence[str], counts: np.ndarray) -> Chart:
    """Draw a confusion matrix: true classes as rows, predicted classes as columns, shaded by share of the row."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        size = len(labels)
        side = max(3.2, 0.34 * size + 1.1)
        figure, axes = blank(side, width=side)
        totals = counts.sum(1, keepdims=True)
        shares = counts / np.maximum(totals, 1)
        for i in range(size):
            for j in range(size):
                if not counts[i, j]:
                    continue
                colour = SERIES[0] if i == j else SERIES[1]
                alpha = 0.1 + 0.45 * float(shares[i, j]) ** 0.6
                axes.add_patch(
                    Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0)
                )
                axes.text(
                    j, i, str(counts[i, j]), ha="center", va="center", fontsize=7.5 if size <= 15 else 6
                )
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        long = max(map(len, labels)) > 3
        axes.set_xticks(range(size), [cut(label) for label in labels], rotation=90 if long else 0)
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


def reliability(name: str, title: str, series: Mapping[str, list[tuple[float, float, int]]]) -> Chart:
    """Draw a reliability diagram: accuracy by confidence bin; a calibrated network is on the diagonal."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(HEIGHT_IN + 0.17 * ((len(series) + 1) // 2))
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (2, 2)))
        for i, (label, bins) in enumerate(series.items()):
            xs, ys, counts = zip(*bins, strict=True)
            axes.plot(xs, ys, color=SERIES[i], label=cut(label, 30), linewidth=1.2)[0].set_dashes(
                DASHES[i] or (1, 0)
            )
            axes.scatter(xs, ys, s=[8 + 90 * c / sum(counts) for c in counts], color=SERIES[i], linewidths=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        legend(figure, axes)
        return finished(name, title, f"{title} for {', '.join(series)}", figure)


def blank(height: float, *, width: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """Return an empty figure of `width` x `height` inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    return figure, axes


def legend(figure: Figure, axes: Axes) -> None:
    """Add a legend above the axes if there is more than one series."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=2.6, columnspacing=1.2)


def finished(name: str, title: str, words: str, figure: Figure) -> Chart:
    """Render a figure as SVG and PNG."""
    svg, png = io.StringIO(), io.BytesIO()
    with any_script():
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        _hold_legends(figure)
        figure.suptitle(title, x=0.02, y=1.01, ha="left", va="bottom", fontsize=10, fontweight="bold")
        figure.savefig(png, format="png", dpi=150, facecolor="white", bbox_inches="tight")
    return Chart(name, title, words, inline(svg.getvalue(), name, words), png.getvalue())


def _hold_legends(figure: Figure) -> None:
    """Fix the layout and the positions of legends; otherwise the title of the PNG would overlap the legend."""
    figure.set_layout_engine("none")
    for entries in figure.legends:
        box = entries.get_window_extent().transformed(figure.transFigure.inverted())
        entries.borderaxespad = 0
        entries.set_loc("upper left")
        entries.set_bbox_to_anchor((box.x0, box.y1), figure.transFigure)


@contextmanager
def any_script() -> Iterator[None]:
    """Suppress warnings about characters that the font lacks: the page's font shows them, PNGs show boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from (current )?font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def inline(svg: str, name: str, words: str) -> str:
    """Return Matplotlib's SVG for embedding in a page: with CSS variables as colours, unique ids, and no font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', svg)
    assert view is not None
    width = float(view[1].split()[2])
    label = words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg viewBox="{view[1]}" role="img" aria-label="{label}" style="max-width:{width * 1.5:.0f}px">'
    svg = head + svg[svg.index(">") + 1 :]
    for variable, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var({variable})")
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', svg).strip()


def cut(label: str, most: int = 18) -> str:
    """Return a label of at most `most` characters."""
    return label if len(label) <= most else label[: most - 1] + "…"
