"""Charts of a sweep, in the style of the charts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from fourds_dist.experiments.sweep.space import SearchDimension, Space, label
from fourds_dist.experiments.sweep.trial_store import Configuration, TrialStore
from fourds_dist.reports.charts import (
    INK,
    LINE,
    SERIES,
    SOFT,
    STYLE,
    WIDTH_IN,
    Chart,
    blank,
    finished,
    legend,
)

GOOD_BAD = LinearSegmentedColormap.from_list("good", [LINE, SERIES[0]])
"""Colours from the worst to the best."""

MARKS = {True: "o", False: "x"}
"""Markers of configurations that ran to their end, and of the others."""


ABSENT = -0.1
"""Position, below all values, of configurations that do not have a key."""


def history(configurations: Sequence[Configuration], mode: str, metric: str) -> Chart:
    """The metric of every configuration in the order of proposal, and the best so far."""
    having = [c for c in configurations if c.mean is not None]
    with mpl.rc_context(STYLE):
        figure, axes = blank(2.9)
        _points(axes, [c.number for c in having], having)
        best = _best_so_far(having, mode)
        axes.step(*best, where="post", color=SERIES[1], linewidth=1.6, label="best so far")
        _percent_y(axes, metric)
        axes.set_xlabel("configuration")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend(figure, axes)
        words = f"{metric} of {len(having)} configurations; best {best[1][-1]:.1%}" if having else metric
        return finished("history", "What was tried", words, figure)


def learning_curves(trial_store: TrialStore, metric: str) -> Chart:
    """The metric of every trial over epochs."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(2.9)
        trials = [t for t in trial_store.trials.values() if t.history]
        values = [t.best(trial_store.mode) or 0.0 for t in trials]
        for trial, colour in zip(trials, _shades(values, trial_store.mode), strict=True):
            epochs, reached = zip(*trial.history, strict=True)
            axes.plot(epochs, reached, color=colour, linewidth=1.2, marker="o", markersize=2.5)
        _percent_y(axes, metric)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        whole = sum(t.state == "done" for t in trials)
        return finished(
            "learning_curves", "Epoch by epoch", f"{len(trials)} trials, {whole} to the end", figure
        )


def importances(shares: Mapping[str, float]) -> Chart:
    """The share of the variance of the metric that each key explains."""
    with mpl.rc_context(STYLE):
        figure, axes = blank(0.8 + 0.34 * max(3, len(shares)))
        places = range(len(shares))
        axes.barh(places, list(shares.values()), color=SERIES[0], height=0.62)
        for place, share in zip(places, shares.values(), strict=True):
            axes.annotate(f"{share:.0%}", (share, place), xytext=(3, 0), textcoords="offset points", va="center",
                          fontsize=8, color=SOFT)  # fmt: skip
        axes.set_yticks(places, list(shares))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("share of the variance explained")
        listed = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        return finished("importance", "What matters", f"Importance: {listed}", figure)


def parallel(space: Space, configurations: Sequence[Configuration], mode: str, metric: str) -> Chart:
    """Parallel coordinates: a line for each configuration through its values and its metric, the best in front."""
    having = sorted(
        (c for c in configurations if c.mean is not None),
        key=lambda c: (c.mean or 0.0) * (1 if mode == "max" else -1),
    )
    keys = list(space.parameters)
    scales = [Scale(space.parameters[key]) for key in keys]
    means = [c.mean or 0.0 for c in having]
    low, high = (min(means), max(means)) if means else (0.0, 1.0)
    reached = [(m - low) / (high - low) if high > low else 0.5 for m in means]
    rows = [
        [
            *(
                scale.place(c.params[key]) if key in c.params else ABSENT
                for key, scale in zip(keys, scales, strict=True)
            ),
            r,
        ]
        for c, r in zip(having, reached, strict=True)
    ]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = blank(3.4, width=max(WIDTH_IN, 1.25 * (len(keys) + 1)))
        lines = [np.column_stack([np.arange(len(row)), row]) for row in rows]
        axes.add_collection(LineCollection(lines, colors=_shades(means, mode), linewidths=1.3))
        for place, scale in enumerate(scales):
            axes.axvline(place, color=SOFT, linewidth=0.8)
            for at, text in scale.ticks():
                axes.annotate(text, (place, at), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center",
                              color=INK, bbox={"facecolor": "white", "alpha": 0.0, "pad": 0.5})  # fmt: skip
        axes.axvline(len(keys), color=SOFT, linewidth=0.8)
        for at, value in ((0.0, low), (1.0, high)):
            axes.annotate(f"{value:.1%}", (len(keys), at), xytext=(3, 0), textcoords="offset points", fontsize=7,
                          va="center", color=INK)  # fmt: skip
        names = [*(f"{key.rpartition('.')[2]}\n{key.rpartition('.')[0]}" for key in keys), metric]
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_ylim(ABSENT - 0.04, 1.06)
        axes.set_xlim(-0.1, len(keys) + 0.45)
        return finished(
            "parallel", "All together", f"{len(having)} configurations over {', '.join(keys)}", figure
        )


def response(
    key: str, parameter: SearchDimension, configurations: Sequence[Configuration], metric: str
) -> Chart:
    """The metric over the values of one key."""
    having = [c for c in configurations if c.mean is not None and key in c.params]
    with mpl.rc_context(STYLE):
        figure, axes = blank(2.6)
        scale = Scale(parameter)
        _points(axes, [scale.x(c.params[key]) for c in having], having)
        scale.label(axes)
        axes.set_xlabel(key)
        _percent_y(axes, metric)
        legend(figure, axes)
        listed = f"{metric} over {key}, {len(having)} configurations"
        return finished(f"response-{key}", key, listed, figure)


class Scale:
    """Positions of the values of a key on an axis."""

    def __init__(self, parameter: SearchDimension) -> None:
        self._parameter, self._values = parameter, parameter.values
        self._is_listed = parameter.kind in ("choice", "grid")

    def x(self, value: Any) -> float:
        """Position on the axis of a chart of the key alone: the value, or its number in the list."""
        return float(self._number(value)) if self._is_listed else float(value)

    def place(self, value: Any) -> float:
        """Position between 0 and 1."""
        if self._is_listed:
            return self._number(value) / max(1, len(self._values) - 1)
        low, high = self._values
        if self._parameter.kind == "loguniform":
            value, low, high = np.log(value), np.log(low), np.log(high)
        return float((value - low) / (high - low))

    def ticks(self) -> list[tuple[float, str]]:
        """(position, text) of all values of a list, or of both ends of a range."""
        known = [(self.place(v), label(v) if self._is_listed else f"{v:.3g}") for v in self._values]
        return [*known, (ABSENT, "-")] if self._parameter.when else known

    def label(self, axes: Axes) -> None:
        """Set scale, limits and labels of the x-axis for the key."""
        if self._is_listed:
            axes.set_xticks(range(len(self._values)), [label(v) for v in self._values])
            axes.set_xlim(-0.5, len(self._values) - 0.5)
            return
        low, high = self._values
        if self._parameter.kind == "loguniform":
            axes.set_xscale("log")
            axes.set_xlim(low / 1.1, high * 1.1)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", which="minor", size=0)
        else:
            axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))

    def _number(self, value: Any) -> int:
        return next(i for i, v in enumerate(self._values) if v == value and type(v) is type(value))


def _points(axes: Axes, xs: Sequence[float], configurations: Sequence[Configuration]) -> None:
    for is_done, mark in MARKS.items():
        chosen = [(x, c) for x, c in zip(xs, configurations, strict=True) if c.is_done == is_done]
        if not chosen:
            continue
        places, values = [x for x, _ in chosen], [c.mean or 0.0 for _, c in chosen]
        errors = [c.spread or 0.0 for _, c in chosen]
        if any(errors):
            axes.errorbar(places, values, errors, fmt="none", ecolor=SOFT, elinewidth=0.8)
        name = "to the end" if is_done else "stopped early"
        axes.scatter(
            places, values, s=22, marker=mark, color=SERIES[0] if is_done else SERIES[5], label=name, zorder=3
        )


def _best_so_far(configurations: Sequence[Configuration], mode: str) -> tuple[list[float], list[float]]:
    best, xs, ys = None, [], []
    for c in configurations:
        mean = c.mean or 0.0
        best = mean if best is None else (max if mode == "max" else min)(best, mean)
        xs.append(float(c.number))
        ys.append(best)
    return xs, ys


def _shades(values: Sequence[float], mode: str) -> list[Any]:
    """A colour for each value, the best the strongest."""
    if not values:
        return []
    ranks = np.argsort(np.argsort(values)) / max(1, len(values) - 1)
    return [to_hex(GOOD_BAD(0.15 + 0.85 * (r if mode == "max" else 1 - r))) for r in ranks]


def _percent_y(axes: Axes, metric: str) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_ylabel(metric)
