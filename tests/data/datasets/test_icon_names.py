"""Names of icons: the class is what is shown, the style how."""

import pytest

from fourds_dist.data.datasets.icon_names import style_and_class


@pytest.mark.parametrize(
    ("name", "set_words", "expected"),
    [
        ("house", "ph", (None, "home")),
        ("home-outline", "mdi", ("line", "home")),
        ("home-24-filled", "fluent", ("solid", "home")),
        ("baseline-home", "ic", ("solid", "home")),
        ("arrow-down-bold-duotone", "solar", ("duotone", "arrow-down")),
        ("home-outline-rounded", "material symbols", ("line", "home")),
        ("shopping-cart", "fa6 solid font awesome 6 solid", ("solid", "shopping-cart")),
        ("bell-outline", "fa6 solid", ("line", "bell")),  # The name takes precedence over the set.
        ("chart-line", "mdi", (None, "chart-line")),
        ("text-bold", "ph", (None, "text-bold")),
        ("bold", "tabler", (None, "bold")),
        ("battery-2", "x", (None, "battery")),
    ],
)
def test_style_and_class(name, set_words, expected):
    assert style_and_class(name, set_words) == expected
