"""All keys of a configuration."""

from __future__ import annotations

from fourds_dist.config.keys import describe
from tests.config.sections import Car


def test_every_key_is_described() -> None:
    table = {key: (kind, default, meaning) for key, kind, default, meaning in describe(Car)}
    assert table["engine.power"] == ("float", "1.0", "Power in kW.")
    assert table["name"] == ("str | null", "null", "Its name.")
    assert table["gears"][0] == "[float, ...]"
    assert all(meaning for _, _, meaning in table.values())
