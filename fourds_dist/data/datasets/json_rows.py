"""Read lists of images in JSON: one object per line, an array of objects, or an object from images to labels."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fourds_dist.data.decode.file_kinds import is_image
from fourds_dist.io.json_text import parse_json

Cells = tuple[int, Sequence[object]]
"""(number of the line or object, from 1; its values)"""


def json_table(file: Path, text: str) -> tuple[list[str], list[Cells]]:
    """Return (names of columns, rows) of a file in JSON.

    Raises:
        ValueError: the file is no list of images; the message names file and line.
    """
    whole: Any = None
    with contextlib.suppress(ValueError):
        whole = parse_json(text)
    if isinstance(whole, dict):
        if {"images", "annotations"} <= set(whole):
            raise ValueError(
                f"{file} is in COCO's format, with any number of annotations for each image; write a list of one label "
                "for each image, as CSV with the columns path and label"
            )
        if isinstance(whole.get("labels"), list):
            whole = whole["labels"]
        elif whole and all(map(is_image, whole)):
            whole = [list(pair) for pair in whole.items()]
        else:
            whole = [whole]
    if isinstance(whole, list) and whole and all(map(_is_pair, whole)):
        return ["path", "label"], list(enumerate(whole, start=1))
    objects: list[tuple[int, Any]] = _lines(file, text) if whole is None else list(enumerate(whole, start=1))
    names: dict[str, None] = {}
    for number, row in objects:
        if not isinstance(row, dict):
            raise ValueError(  # noqa: TRY004  (of the data)
                f"{file}, line {number}: not a JSON object; give one object for each image, with path and label"
            )
        names |= dict.fromkeys(row)
    return list(names), [(number, [row.get(name) for name in names]) for number, row in objects]


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and is_image(value[0])


def _lines(file: Path, text: str) -> list[tuple[int, object]]:
    objects: list[tuple[int, object]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                objects.append((number, parse_json(line)))
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error})") from None
    return objects
