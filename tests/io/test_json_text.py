"""Any text that is not JSON is a ValueError with a message for the user."""

from __future__ import annotations

import pytest

from fourds_dist.io.json_text import parse_json


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_values_in_any_unicode_encoding(encoding: str) -> None:
    assert parse_json('{"köter": [1, 2.5, null]}'.encode(encoding)) == {"köter": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "Expecting value"),
        ('{"a": }', r"Expecting value: line 1 column 7 \(char 6\)"),
        (b'{"a": "\xff"}', "^it is no text: byte 7 is none of utf-8$"),
        ("[" * 100_000, "^its lists and objects are nested too deeply$"),
        ("9" * 5000, "^it holds a number with thousands of digits$"),
    ],
)
def test_errors(data: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(data)
