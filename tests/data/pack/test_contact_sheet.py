"""The picture sheet: the right class in the right row, grey where there is nothing."""

import numpy as np
from PIL import Image

from fourds_dist.data.datasets.example import Example
from fourds_dist.data.datasets.png import png
from fourds_dist.data.pack.contact_sheet import contact_sheet

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def examples(labels):
    for number, label in enumerate(labels):
        yield Example(f"{number}", png(Image.new("RGB", (20, 20), COLOURS[label])), "png", label, "train")


def test_rows_are_classes_and_blocks_are_domains():
    sheet = contact_sheet(
        {"one": examples(["red", "blue", "red", "green"] * 5), "two": examples(["green", "red"])},
        images_per_class=2,
        tile_pixels=20,
    )
    middle = np.asarray(sheet)[16 + 10 :: 20][:3]  # One line of pixels through each of: blue, green, red.
    first, second = 110 + 10, 110 + 2 * 20 + 8 + 10
    assert [tuple(line[first]) for line in middle] == [COLOURS["blue"], COLOURS["green"], COLOURS["red"]]
    assert [tuple(line[first + 20]) for line in middle][1:] == [COLOURS["green"], COLOURS["red"]]
    assert [tuple(line[second]) for line in middle] == [(200, 200, 200), COLOURS["green"], COLOURS["red"]]
