"""Charts: valid SVG and PNG, colours, text alternatives, odd values and names."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from fourds_dist.reports import charts
from fourds_dist.reports.charts import INK, LINE, SERIES, SOFT, Chart, Point

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
POINTS = {"a & b": Point(1.0, 0.5, 0.4, 0.6), "c": Point(9.0, 0.8, 0.7, 0.9)}
DRAWN = {
    "scatter": lambda: charts.scatter("f", "F", POINTS, x="ms", y="accuracy", percent=True, plain=("c",)),
    "lines": lambda: charts.lines(
        "a", "A", {"one": ([1, 2], [0.5, 0.25]), "two": ([1, 2], [0.1, 0.0])}, log=True
    ),
    "confusion": lambda: charts.confusion("c", "C", ["ant", "bee"], np.array([[5, 2], [0, 3]])),
    "reference": lambda: charts.lines(
        "d",
        "D",
        {"x & y": ([0.4, 0.9], [0.5, 0.8])},
        reference=("calibrated", ([0, 1], [0, 1])),
        percent=True,
    ),
    "sheet": lambda: charts.sheet(
        "e", "E", [("row", [("a\nb", PIXELS), ("c", PIXELS / 255)])], words="a <b>"
    ),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_the_svg_needs_nothing_else_and_the_png_has_content(kind: str) -> None:
    chart: Chart = DRAWN[kind]()
    root = ET.fromstring(chart.svg)
    links = [v for node in root.iter() for k, v in node.attrib.items() if k.rpartition("}")[2] == "href"]
    assert all(link.startswith(("#", "data:image/png;")) for link in links)
    assert root.attrib["width"] == f"{72 * chart.width_in:g}pt"
    assert np.asarray(Image.open(io.BytesIO(chart.png)).convert("L")).std() > 5
    assert DRAWN[kind]() == chart


def test_text_alternatives_hold_the_numbers() -> None:
    assert "most frequent error: ant predicted as bee, 2 times" in DRAWN["confusion"]().words
    assert DRAWN["lines"]().words == "A by epoch: one ends at 0.25, two ends at 0"


def test_names_of_points_overlap_neither_each_other_nor_points() -> None:
    near = {f"name{i}": Point(10 + 0.5 * i, 0.9 + 0.001 * i, 0.8, 1.0) for i in range(4)}
    chart = charts.scatter("n", "N", near, x="x", y="y")
    root = ET.fromstring(chart.svg)
    places = [
        tuple(float(node.attrib[key]) for key in ("x", "y"))
        for node in root.iter("{http://www.w3.org/2000/svg}text")
        if (node.text or "").startswith("name")
    ]
    assert len(places) == len(near)
    for i, (x, y) in enumerate(places):
        for other_x, other_y in places[i + 1 :]:
            assert abs(x - other_x) > 25 or abs(y - other_y) > 8
    assert chart.words == "N: name0 0.9 at 10, name1 0.901 at 10.5, name2 0.902 at 11, name3 0.903 at 11.5"


def test_a_sheet_shows_each_picture_upright_in_its_place() -> None:
    dark, half = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    dark[0] = half[0] = (255, 0, 0)
    half[1] = (0, 0, 255)
    png = charts.sheet("s", "S", [("", [("a", dark), ("b", half)])], words="").png
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    red, blue = (np.abs(pixels - colour).sum(2) < 30 for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.any()
    assert np.argwhere(blue)[:, 0].min() > np.argwhere(red)[:, 0].max()
    assert np.argwhere(blue)[:, 1].min() > np.argwhere(red)[:, 1].mean()


def test_colours_have_contrast_to_the_background() -> None:
    assert all(contrast(colour, "#ffffff") >= 4.5 for colour in (*SERIES, INK, SOFT))
    assert contrast(LINE, "#ffffff") >= 1.2


@pytest.mark.parametrize("blindness", ["protan", "deutan", "tritan"])
def test_the_first_colours_differ_for_colour_blind_eyes(blindness: str) -> None:
    """Machado et al. 2009, full severity; the later series differ by dash as well."""
    one, two = (seen(colour, blindness) for colour in SERIES[:2])
    assert np.linalg.norm(one - two) > 0.25


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


def seen(colour: str, blindness: str) -> np.ndarray:
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
        charts.confusion("h", "H", [name, "b"], np.array([[5, 2], [0, 3]])),
        charts.lines("j", "J", {name: ([1.0, 2.0], [1.0, 2.0]), "b": ([1.0], [1.0])}),
        charts.sheet("k", "K", [(name, [(f"true: b\n{name}", PIXELS)])], words=name),
    ):
        texts = [text.text or "" for text in ET.fromstring(chart.svg).iter()]
        assert any(text.startswith(name[:9]) for text in texts), chart.name
