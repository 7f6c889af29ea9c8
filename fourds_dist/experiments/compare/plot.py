"""The plot of a comparison: paired differences with their intervals, a panel for each regime."""

from __future__ import annotations

import io
import math

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fourds_dist.experiments.compare.results import Results
from fourds_dist.experiments.compare.tables import comparisons
from fourds_dist.reports.charts import GAIN, INK, LOSS, SOFT, STYLE

PANEL_IN, ROW_IN, MARGIN_IN = 4.2, 0.42, 0.5
MOST_ACROSS = 2
"""The largest number of panels side by side."""


def differences_png(results: Results) -> bytes | None:
    """The plot as PNG; None where no two methods have a common cell."""
    wanted = list(comparisons(results))
    regimes = [r for r in results.plan.config.regimes if any(results.differences(r, *two) for two in wanted)]
    if not regimes:
        return None
    rows = [two for two in wanted if any(results.differences(regime, *two) for regime in regimes)]
    with mpl.rc_context(STYLE):
        num_across = min(MOST_ACROSS, len(regimes))
        num_down = math.ceil(len(regimes) / num_across)
        size = 1.9 + PANEL_IN * num_across, MARGIN_IN + (0.8 + ROW_IN * len(rows)) * num_down
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(num_down, num_across, sharex=True, sharey=True, squeeze=False).flat
        for axes in panels[len(regimes) :]:
            axes.set_visible(False)
        for axes, regime in zip(panels, regimes, strict=False):
            _panel(axes, results, regime, rows)
        several = any(len(results.difference_by_pair(regime, *two)) > 1 for regime in regimes for two in rows)
        over = "pairs; small: one pair of domains" if several else "seeds"
        title = f"Paired differences in accuracy: mean and 95 % interval over {over}"
        figure.suptitle(f"{title}\n{results.devices}", x=0.02, ha="left", fontsize=9)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150, facecolor="white")
        return png.getvalue()


def _panel(axes: Axes, results: Results, regime: str, rows: list[tuple[str, str]]) -> None:
    axes.set_title(regime.replace("_", " "), loc="left", fontsize=10, fontweight="bold")
    axes.axvline(0, color=SOFT, linewidth=1)
    for place, (method, baseline) in enumerate(rows):
        mean = results.difference(regime, method, baseline)
        if mean is None:
            continue
        for on_pair in results.difference_by_pair(regime, method, baseline).values():
            axes.plot([100 * on_pair.value], [place + 0.22], marker="o", markersize=3, color=SOFT, alpha=0.7)
        low, high = (100 * (mean.value if end is None else end) for end in (mean.low, mean.high))
        is_open = mean.low is None or low <= 0 <= high  # a single cell decides nothing
        colour = SOFT if is_open else GAIN if low > 0 else LOSS
        axes.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.45, solid_capstyle="butt")
        axes.plot([100 * mean.value], [place], marker="o", markersize=6, color=colour)
        axes.annotate(
            f"{100 * mean.value:+.1f}", (100 * mean.value, place), xytext=(0, 6), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    names = [f"{method} - {baseline}".replace("_", " ") for method, baseline in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("points")
