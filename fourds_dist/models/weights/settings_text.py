"""Settings that other trainers store as a text: JSON, Python assignments (MMEngine), or YAML (Detectron2).

{"mean": [0.5, 0.5, 0.5]}
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], to_rgb=True)
INPUT: {FORMAT: BGR}
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fourds_dist.io.json_text import parse_json
from fourds_dist.io.yaml_text import parsed_yaml

MOST_CHARACTERS = 1_000_000
"""Longer texts are ignored."""
MOST_MERGED = 1000
"""Number of keys that the merge keys of a YAML text may copy."""


def settings_of(text: str) -> Mapping[Any, Any] | None:
    """Return the settings in a text; None if there are none. No code of the text runs."""
    if len(text) > MOST_CHARACTERS:
        return None
    for parse in (parse_json, _assignments, _yaml):
        try:
            value = parse(text)
        except Exception:  # the text is in another language; each parser has exceptions of its own
            continue
        if isinstance(value, Mapping) and value:
            return value
    return None


def _yaml(text: str) -> Any:
    return parsed_yaml(text, most_merged=MOST_MERGED)


def _assignments(text: str) -> dict[str, Any]:
    """Return the values of `name = value` lines in Python, with `dict(...)` as a dictionary."""
    return {
        target.id: _value(statement.value)
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call():
            return {word.arg: _value(word.value) for word in node.keywords if word.arg is not None}
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {_value(key): _value(value) for key, value in pairs if isinstance(key, ast.Constant)}
        case ast.List() | ast.Tuple():
            return [_value(element) for element in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # a name or an expression
        return None
