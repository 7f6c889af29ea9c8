"""All keys of a configuration."""

from __future__ import annotations

from fourds_dist.config.keys import describe, sections_of
from tests.config.sections import Car, Engine


def test_every_key_is_described() -> None:
    table = {key: (kind, default, meaning) for key, kind, default, meaning in describe(Car)}
    assert table["engine.power"] == ("float", "1.0", "Power in kW.")
    assert table["name"] == ("str | null", "null", "Its name.")
    assert table["gears"][0] == "[float, ...]"
    assert all(meaning for _, _, meaning in table.values())


def test_sections_stand_before_their_keys() -> None:
    sections = sections_of(Car)
    assert sections["engine"] is Engine
    assert sections["engine.power"] is None
    names = list(sections)
    assert names.index("engine") < names.index("engine.power")
    assert set(names) == {"engine"} | {key for key, *_ in describe(Car)}
