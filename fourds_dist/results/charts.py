"""Charts of a report: each drawn once by Matplotlib, for the page as SVG and beside it as PNG.

In the SVG every colour becomes a variable of the page (`PALETTE`), so that one drawing serves light and dark, and words
stay words, in the page's own font. Series differ by dash as well as by colour; the colours are told apart with any kind
of colour blindness (after Okabe and Ito), and stand out from the paper.
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
"""Variable of the page -> its colour in light (also in PNGs) and in dark."""

SERIES = [light for name, (light, _) in PALETTE.items() if name.startswith("--s") and name != "--soft"]
GAIN, LOSS, INK, SOFT, LINE = SERIES[0], SERIES[1], *(PALETTE[n][0] for n in ("--ink", "--soft", "--line"))
DASHES: list[tuple[float, ...] | None] = [None, (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1), (10, 3)]

WIDTH_IN, HEIGHT_IN = 4.4, 2.9
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $5
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
    """A drawing."""

    name: str
    """Of its PNG, without extension."""
    title: str
    words: str
    """What it shows, for those who cannot see it."""
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
    """Curves over x.

    Args:
        percent: y is a share.
        log: logarithmic y, where anything is above zero.
        least: the y-axis begins there at the latest.
        reference: a level to compare with, as (name, y).
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
    """Shares as dots with their intervals, one row each; `reference` is a level to compare with, as (name, y)."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(0.6 + 0.48 * len(rows))
        for place, (row, (value, (low, high))) in enumerate(rows.items()):
            best = value == max(v for v, _ in rows.values())
            colour, weight = (SERIES[0], "bold") if best else (SERIES[5], "normal")
            axes.plot(
                [low, high], [place, place], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt"
            )
            axes.plot([value], [place], marker="o", color=colour, markersize=6.5)
            beside = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(f"{value:.1%}", (high, place), fontweight=weight, **beside)
            axes.text(0, place - 0.38, cut(row, 40), va="center", fontsize=9, fontweight=weight)
            axes.plot([reference[1]] * 2, [place - 0.16, place + 0.16], color=SOFT, linewidth=1.5)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.set_xlim(0, 1.14)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel(f"upright stroke: {reference[0]}")
        told = "; ".join(f"{row} {v:.1%}, between {a:.1%} and {b:.1%}" for row, (v, (a, b)) in rows.items())
        return finished(name, title, f"{title}: {told}; {reference[0]} {reference[1]:.1%}", figure)


def gains(name: str, title: str, labels: Sequence[str], values: Sequence[float], *, baseline: str) -> Chart:
    """Bars to the right (gains) and to the left (losses), largest gain first."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(0.7 + 0.24 * max(4, len(labels)))
        order: list[int] = np.argsort(values, kind="stable").tolist()
        for place, i in enumerate(order):
            value = values[i]
            axes.barh(place, value, color=GAIN if value >= 0 else LOSS, height=0.68)
            axes.annotate(
                f"{100 * value:+.0f}" if round(100 * value) else "0",
                (value, place), xytext=(3 if value >= 0 else -3, 0), textcoords="offset points",
                va="center", ha="left" if value >= 0 else "right", fontsize=8, color=SOFT,
            )  # fmt: skip
        axes.set_yticks(range(len(order)), [cut(labels[i]) for i in order])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.14)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol="", decimals=None))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"points over {cut(baseline, 30)}")
        told = ", ".join(f"{labels[i]} {100 * values[i]:+.0f}" for i in reversed(order))
        return finished(name, title, f"{title}, in points: {told}", figure)


def confusion(name: str, title: str, labels: Sequence[str], counts: np.ndarray) -> Chart:
    """A matrix: true class down, predicted class across; shade by share of the true class."""
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
        axes.set_xlabel("called")
        axes.set_ylabel("is")
        wrong = counts.copy()
        np.fill_diagonal(wrong, 0)
        i, j = divmod(int(wrong.argmax()), size)
        most = (
            f"most often {labels[i]} is called {labels[j]}, {wrong[i, j]} times"
            if wrong.any()
            else "no mistakes"
        )
        return finished(name, title, f"{title}: {most}", figure)


def reliability(name: str, title: str, series: Mapping[str, list[tuple[float, float, int]]]) -> Chart:
    """Accuracy by confidence; on the diagonal a network is as often right as it believes."""
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
        axes.set_ylabel("right")
        legend(figure, axes)
        return finished(name, title, f"{title} for {', '.join(series)}", figure)


def blank(height: float, *, width: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """An empty drawing, `height` and `width` in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    return figure, axes


def legend(figure: Figure, axes: Axes) -> None:
    """Names of what is drawn, above the axes, where there is more than one thing."""
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=2.6, columnspacing=1.2)


def finished(name: str, title: str, words: str, figure: Figure) -> Chart:
    """The drawing as a chart: for a page, and as a picture of its own."""
    svg, png = io.StringIO(), io.BytesIO()
    with any_script():
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        _hold_legends(figure)
        figure.suptitle(title, x=0.02, y=1.01, ha="left", va="bottom", fontsize=10, fontweight="bold")
        figure.savefig(png, format="png", dpi=150, facecolor="white", bbox_inches="tight")
    return Chart(name, title, words, inline(svg.getvalue(), name, words), png.getvalue())


def _hold_legends(figure: Figure) -> None:
    """Fix the drawing as it is: legends keep to its upper end, and would go up into a title above it."""
    figure.set_layout_engine("none")
    for names in figure.legends:
        box = names.get_window_extent().transformed(figure.transFigure.inverted())
        names.borderaxespad = 0
        names.set_loc("upper left")
        names.set_bbox_to_anchor((box.x0, box.y1), figure.transFigure)


@contextmanager
def any_script() -> Iterator[None]:
    """No complaint about scripts that the drawing's font lacks: a page shows them in its own, a PNG as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from (current )?font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def inline(svg: str, name: str, words: str) -> str:
    """Matplotlib's SVG as part of a page: its colours become variables, its names unique, its font the page's."""
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
    """A name short enough to stand in a drawing."""
    return label if len(label) <= most else label[: most - 1] + "…"
