"""Charts: theme colours, unique ids, text alternatives."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from fourds_dist.reports import charts
from fourds_dist.reports import images as pictures
from fourds_dist.reports.charts import PALETTE, Chart

DRAWN = {
    "lines": lambda: charts.lines(
        "a", "A", {"one": ([1, 2], [0.5, 0.25]), "two": ([1, 2], [0.1, 0.0])}, log=True
    ),
    "gains": lambda: charts.gains("b", "B", ["ant", "bee"], [0.5, -0.25], baseline="teacher"),
    "confusion": lambda: charts.confusion("c", "C", ["ant", "bee"], np.array([[5, 2], [0, 3]])),
    "reliability": lambda: charts.reliability("d", "D", {"student": [(0.4, 0.5, 9), (0.9, 0.8, 20)]}),
    "intervals": lambda: charts.intervals("e", "E", {"x & y": (0.9, (0.8, 0.95))}, reference=("chance", 0.1)),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_colours_and_ids_of_the_svg_and_content_of_the_png(kind: str) -> None:
    chart: Chart = DRAWN[kind]()
    root = ET.fromstring(chart.svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    assert root.attrib["aria-label"] == chart.words
    assert not re.findall(r"#[0-9a-f]{6}", chart.svg)
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", chart.svg)) <= set(PALETTE)
    assert all(name.startswith(f"{chart.name}-") for name in re.findall(r'\bid="([^"]+)"', chart.svg))
    assert "font-family" not in chart.svg
    assert np.asarray(Image.open(io.BytesIO(chart.png)).convert("L")).std() > 5


def test_text_alternatives_hold_the_numbers() -> None:
    assert "most frequent error: ant predicted as bee, 2 times" in DRAWN["confusion"]().words
    assert DRAWN["gains"]().words.endswith("ant +50, bee -25")


@pytest.mark.parametrize(("theme", "paper"), [(0, "#ffffff"), (1, "#14171a")])
def test_colours_have_contrast_to_the_background(theme: int, paper: str) -> None:
    for name, colours in PALETTE.items():
        least = 1.2 if name == "--line" else 4.5
        assert contrast(colours[theme], paper) >= least, name


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("blindness", ["protan", "deutan", "tritan"])
def test_the_first_colours_differ_for_colour_blind_eyes(theme: int, blindness: str) -> None:
    """Machado et al. 2009, full severity; the later series differ by dash as well."""
    colours = [analysis(PALETTE[f"--s{i}"][theme], blindness) for i in (1, 2)]
    assert np.linalg.norm(colours[0] - colours[1]) > 0.25


MACHADO = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def analysis(colour: str, blindness: str) -> np.ndarray:
    return np.clip(np.array(MACHADO[blindness]) @ linear(colour), 0, 1) ** (1 / 2.2)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("log", [True, False], ids=["log", "linear"])
@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [0.5], [0.0], [1.0, float("nan"), 2.0], [1.0, float("inf")], [-1.0, -2.0], [1e-9, 1e9]],
    ids=str,
)
def test_odd_curves_are_drawn_without_warnings(values: list[float], log: bool) -> None:
    drawn = charts.lines("f", "F", {"odd": ([float(i) for i in range(len(values))], values)}, log=log)
    assert "odd ends at" in drawn.words
    assert np.asarray(Image.open(io.BytesIO(drawn.png)).convert("L")).std() > 1


@pytest.mark.parametrize(
    "name", ["$5 bill$", r"$\frac$", "猫", "كلب", "a_b^c", "<&>", "x" * 200, "\N{CAT FACE}"]
)
def test_classes_may_be_called_anything(name: str) -> None:
    """Dollar signs do not start formulas; characters that the font lacks raise no warning."""
    for chart in (
        charts.gains("g", "G", [name, "b"], [0.5, -0.25], baseline=name),
        charts.confusion("h", "H", [name, "b"], np.array([[5, 2], [0, 3]])),
        charts.intervals("i", "I", {name: (0.9, (0.8, 0.95))}, reference=("chance", 0.1)),
        charts.lines("j", "J", {name: ([1.0, 2.0], [1.0, 2.0]), "b": ([1.0], [1.0])}),
    ):
        root = ET.fromstring(chart.svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
        assert any((text.text or "").startswith(name[:9]) for text in root.iter() if text.text), chart.name
    assert pictures.sheet("T", [("row", [(name, np.zeros((4, 4, 3), np.uint8))])])
