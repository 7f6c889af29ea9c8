"""Configuration files and values as plain trees: dictionaries, lists, numbers and text, with bounds on their size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from fourds_dist.config.section import ConfigError
from fourds_dist.io.error_text import one_line
from fourds_dist.io.storage import beside, is_url, read_text
from fourds_dist.io.yaml_text import MergeError, parsed_yaml

MOST_VALUES = 100_000
"""Bound on the values of a configuration with expanded aliases: a few lines of nested aliases could exhaust memory."""


MOST_DEPTH = 50
"""Bound on the depth of nested sections and lists."""


MOST_CHARACTERS = 300
"""Characters of a value that an error shows."""


_parsed = lru_cache(maxsize=64)(partial(parsed_yaml, most_merged=MOST_VALUES))
"""The parser, with the values of its last texts: sweeps and comparisons read one file and one value many times."""


def read_tree(path: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tree of a file merged over its base, and dotted key -> file."""
    identity = path if is_url(path) else os.path.realpath(path)
    if identity in seen:
        raise ConfigError(f"configuration {path} is its own base, through {' <- '.join(seen)}")
    try:
        text = read_text(path)
    except ValueError as error:
        raise ConfigError(f"configuration {error}") from None
    tree = tree_of(text, f"configuration {path}")
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"configuration {path} holds a {type(tree).__name__}; it should hold `key: value` lines"
        )
    base = tree.pop("base", None)
    if base is None:
        return tree, {key: path for key, _ in flatten(tree)}
    if not isinstance(base, str):
        raise ConfigError(f"configuration {path}: base should be a path, not {base!r}")
    merged, origin = read_tree(beside(path, base), (*seen, identity))
    for key, value in flatten(tree):
        set_key(merged, key, value)
        origin[key] = path
    return merged, origin


def tree_of(text: str, where: str) -> Any:
    """Return the plain values of a YAML text; errors name `where`.

    Raises:
        ConfigError: the text is not YAML, has values that are not plain, or exceeds a bound.
    """
    try:
        tree = _parsed(text)
    except MergeError as error:
        raise ConfigError(f"{where} {error}; write fewer of them") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply") from None
    except Exception as error:  # YAMLError, or an error of the parser in numbers, dates and keys
        raise ConfigError(f"{where} is not YAML: {one_line(error, MOST_CHARACTERS)}") from None
    return _plain_values(tree, where)  # a copy: callers change trees in place


def _plain_values(tree: Any, where: str) -> Any:
    """Return the tree with JSON values only; aliases become copies."""
    left = MOST_VALUES

    def plain(value: Any, key: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(
                f"{where} stands for more than {MOST_VALUES} values; write fewer aliases (*name)"
            )
        if depth > MOST_DEPTH:
            raise ConfigError(
                f"{where} is nested more than {MOST_DEPTH} deep, or an alias (*name) holds itself"
            )
        if isinstance(value, dict):
            return {_name(name): plain(entry, f"{key}.{name}", depth + 1) for name, entry in value.items()}
        if isinstance(value, list):
            return [plain(entry, key, depth + 1) for entry in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise ConfigError(f"{where}{_of(key)} is not text: it holds half a character (a surrogate)")
            return str(value)
        raise ConfigError(
            f"{where}{_of(key)} is read as a {type(value).__name__}; put it in quotes if it is meant as text"
        )

    def _name(name: Any) -> str:
        if isinstance(name, str):
            return name
        if isinstance(name, int | float) and not isinstance(name, bool):
            return str(name)
        raise ConfigError(f"{where}: the key {str(name)[:MOST_CHARACTERS]!r} is no word; put it in quotes")

    def _of(key: str) -> str:
        return f": {key[1:MOST_CHARACTERS]}" if key else ""

    return plain(tree, "", 0)


def copied(tree: Any) -> Any:
    """Return a copy of a tree of plain values, which shares no section and no list with it."""
    if isinstance(tree, dict):
        return {name: copied(value) for name, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a tree in place."""
    *parents, last = key.split(".")
    if len(parents) > MOST_DEPTH:
        raise ConfigError(f"the key {shown_value(key)} is nested more than {MOST_DEPTH} deep; no key is")
    for parent in parents:
        child = tree.get(parent)
        tree[parent] = child if isinstance(child, dict) else {}
        tree = tree[parent]
    tree[last] = value


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf of a tree."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def shown_value(value: Any) -> str:
    """Return a value for an error message, cut to MOST_CHARACTERS."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}... ({len(text)} characters)"
