"""Lists of images in JSON become columns and numbered rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.data.datasets.json_rows import json_table

FILE = Path("list.json")


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ('{"path": "a.png", "label": 1}\n\n{"path": "b.png", "split": "val"}\n', ["path", "label", "split"],
         [(1, ["a.png", 1, None]), (3, ["b.png", None, "val"])]),
        ('[{"x": 1}, {"y": [2]}]', ["x", "y"], [(1, [1, None]), (2, [None, [2]])]),
        ('{"a.png": "cat", "b.JPG": 0}', ["path", "label"], [(1, ["a.png", "cat"]), (2, ["b.JPG", 0])]),
        ('{"labels": [["a.png", 3]]}', ["path", "label"], [(1, ["a.png", 3])]),
        ('[["a.png", 3], ["b.png", null]]', ["path", "label"], [(1, ["a.png", 3]), (2, ["b.png", None])]),
        ('{"path": "a.png", "label": "cat"}', ["path", "label"], [(1, ["a.png", "cat"])]),
        ("[]", [], []),
        ("", [], []),
    ],
)  # fmt: skip
def test_forms(text: str, names: list[str], rows: list[tuple[int, list[object]]]) -> None:
    found, cells = json_table(FILE, text)
    assert found == names
    assert [(number, list(values)) for number, values in cells] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [], "annotations": []}',
            r"^list\.json is in COCO's format, .*write a list of one label",
        ),
        ('{"path": "a.png"}\n{"path": ', r"^list\.json, line 2: not JSON \(.+\)$"),
        ('{"path": "a.png"}\n7\n', r"^list\.json, line 2: not a JSON object; give one object for each image"),
        ('["a.png", "b.png"]', r"^list\.json, line 1: not a JSON object"),
    ],
)
def test_what_is_no_list(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_table(FILE, text)
