"""The plot of a comparison, from cells whose numbers are known."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fourds_dist.experiments.compare.plan import Cell, ComparisonPlan
from fourds_dist.experiments.compare.plot import differences_png
from fourds_dist.experiments.compare.results import Results
from fourds_dist.reports.charts import GAIN, LOSS
from tests.experiments.compare.known import result


def test_the_plot_is_a_picture(known: Results) -> None:
    png = differences_png(known)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000
    assert differences_png(Results(known.plan, {})) is None


def of_seeds(plan: ComparisonPlan, *gains: float) -> Results:
    """Results of 4ds on one pair that are above those of cross_entropy by a number for each seed."""
    cells = {}
    for seed, gain in enumerate(gains):
        cells[Cell("few", "a", "b", seed, "cross_entropy")] = result(0.5)
        cells[Cell("few", "a", "b", seed, "4ds")] = result(0.5 + gain)
    return Results(plan, cells)


def decided(results: Results) -> list[str]:
    """The colours of gains and losses that the plot has."""
    png = differences_png(results)
    assert png is not None
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    wanted = {colour: [int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (GAIN, LOSS)}
    return [c for c, rgb in wanted.items() if (np.abs(pixels - rgb).max(-1) <= 2).sum() > 50]


def test_a_difference_has_a_colour_where_its_interval_is_on_one_side_of_zero(plan: ComparisonPlan) -> None:
    assert decided(of_seeds(plan, 0.1, 0.101)) == [GAIN]
    assert decided(of_seeds(plan, -0.1, -0.101)) == [LOSS]
    assert decided(of_seeds(plan, 0.1, -0.05)) == []
    assert decided(of_seeds(plan, 0.1)) == []


def test_a_regime_without_a_difference_has_no_panel(plan: ComparisonPlan) -> None:
    def width(results: Results) -> int:
        png = differences_png(results)
        assert png is not None
        return Image.open(io.BytesIO(png)).width

    one = of_seeds(plan, 0.1, 0.2)
    both = Results(plan, one.cells | {cell._replace(regime="all"): r for cell, r in one.cells.items()})
    assert width(both) - width(one) == round(4.2 * 150)
