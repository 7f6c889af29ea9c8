"""Typed configuration: defaults < YAML < `key=value`, checked completely before any long work.

Each part of the package declares a frozen section beside the code that it configures: a subclass of `ConfigSection`
whose attributes have docstrings. The root `fourds_dist.stages.settings.Settings` combines the sections. This module
loads, merges, checks, describes and dumps such a tree:

    settings = load(Settings, "configs/quickstart.yaml", ["launch.workers=4", "method.preset=4ds_released"])
"""

from __future__ import annotations

import difflib
import io
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from fourds_dist.config.section import ConfigError, ConfigSection
from fourds_dist.io.error_text import one_line
from fourds_dist.io.storage import beside, is_url, read_text
from fourds_dist.io.yaml_text import MergeError, parsed_yaml

S = TypeVar("S", bound=ConfigSection)


MOST_VALUES = 100_000
"""Bound on the values of a configuration with expanded aliases: a few lines of nested aliases could exhaust memory."""


MOST_DEPTH = 50
"""Bound on the depth of nested sections and lists."""


MOST_CHARACTERS = 300
"""Characters of a value that an error shows."""


@dataclass(frozen=True)
class Draft:
    """A configuration as given, before validation: missing keys stay missing, so that a preset can fill them."""

    tree: dict[str, Any]
    origin: dict[str, str]
    """Dotted key -> file or override that gives it."""

    def changed(self, changes: Mapping[str, Any], where: str) -> Draft:
        """Return a copy with changed dotted keys; errors about these keys name `where`."""
        tree, origin = deepcopy(self.tree), dict(self.origin)
        for key, value in changes.items():
            _set(tree, key, value)
            origin[key] = where
        return Draft(tree, origin)

    def refuse_unknown_keys(self, root: type[ConfigSection]) -> None:
        """Raise ConfigError for a key that `root` does not have; the message suggests the nearest valid key."""
        _refuse_unknown_keys(root, self.tree, self.origin)

    def build(self, root: type[S]) -> S:
        """Return the typed configuration.

        Raises:
            ConfigError: unknown key (the message suggests the nearest valid key), wrong type, invalid value.
        """
        self.refuse_unknown_keys(root)
        try:
            # JSON mode is strict about scalars, and accepts a list for a tuple.
            return root.model_validate_json(json.dumps(self.tree))
        except ValidationError as error:
            raise ConfigError(_explain(error, self.origin)) from None


def draft(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Draft:
    """Read a YAML file (path or URL) and `dotted.key=value` overrides; later values win. See `load`.

    Raises:
        ConfigError: unreadable file, or an override that is not `key=value`.
    """
    given = Draft(*_read(str(path))) if path is not None else Draft({}, {})
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign or not key:
            raise ConfigError(f"override {override!r} is not of the form key=value, e.g. launch.workers=4")
        where = f"override {override!r}"
        given = given.changed({key.strip(): _yaml(text, where)}, where)
    return given


def parsed(text: str, where: str) -> Draft:
    """Read a YAML text.

    Raises:
        ConfigError: the text is not YAML, or has no `key: value` lines.
    """
    tree = _yaml(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} holds a {type(tree).__name__}; it should hold `key: value` lines")
    return Draft(tree, {key: where for key, _ in flatten(tree)})


def load(root: type[S], path: str | Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Build `root` from its defaults, a YAML file and `dotted.key=value` overrides; later values win.

    `path` is a path or URL. The key `base` of a file names another file, relative to this one, whose values the file
    overrides. Values of overrides are YAML: `a.b=3`, `a.b=[1, 2]`, `a.b=null`.

    Raises:
        ConfigError: unreadable file, unknown key (the message suggests the nearest key), wrong type, invalid value.
    """
    return draft(path, overrides).build(root)


def builtin_config(name: str) -> Path:
    """Return the path of a configuration of the package: in configs/ of a clone, or inside the installed package."""
    installed = Path(__file__).parents[1] / "configs" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "configs" / name


def dump(settings: ConfigSection) -> str:
    """Return the complete configuration as YAML; `load` of the text returns `settings`."""
    return to_yaml(settings.model_dump(mode="json"))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Return plain values as YAML, in their order."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.dump(dict(tree), out)
    return out.getvalue()


def describe(root: type[ConfigSection]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, type, default, meaning) of every key, in the order of declaration.

    The default is that of the section, or the value of the default preset.
    """
    yield from _described(root, "", None)


def _described(
    root: type[ConfigSection], prefix: str, default: ConfigSection | None
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in root.model_fields.items():
        value = getattr(default, name) if default else field.get_default(call_default_factory=True)
        section = section_of(field.annotation)
        if section is not None:
            yield from _described(
                section, f"{prefix}{name}.", value if isinstance(value, ConfigSection) else None
            )
        else:
            shown = "required" if value is PydanticUndefined else json.dumps(_plain(value))
            yield (
                prefix + name,
                _type_name(field.annotation),
                shown,
                " ".join((field.description or "").split()),
            )


def differing(old: ConfigSection, new: ConfigSection) -> dict[str, str]:
    """Return dotted key -> 'key: old -> new' of the keys in which two configurations of one root differ."""
    before, after = dict(flatten(old.model_dump(mode="json"))), dict(flatten(new.model_dump(mode="json")))
    keys = [*before, *(key for key in after if key not in before)]
    return {k: f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)}


def differences(old: ConfigSection, new: ConfigSection) -> list[str]:
    """Return 'key: old -> new' of the keys in which two configurations of one root differ."""
    return list(differing(old, new).values())


def as_words(settings: ConfigSection, keys: Iterable[str]) -> list[str]:
    """Return `key=value` words that set keys to their values in `settings`."""
    values, words = dict(flatten(settings.model_dump(mode="json"))), []
    for key in keys:
        value = values[key]
        is_plain = isinstance(value, str) and _yaml(value, key) == value if value else False
        words.append(f"{key}={value if is_plain else json.dumps(value)}")
    return words


def _read(path: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tree of a file merged over its base, and dotted key -> file."""
    identity = path if is_url(path) else os.path.realpath(path)
    if identity in seen:
        raise ConfigError(f"configuration {path} is its own base, through {' <- '.join(seen)}")
    try:
        text = read_text(path)
    except ValueError as error:
        raise ConfigError(f"configuration {error}") from None
    tree = _yaml(text, f"configuration {path}")
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
    merged, origin = _read(beside(path, base), (*seen, identity))
    for key, value in flatten(tree):
        _set(merged, key, value)
        origin[key] = path
    return merged, origin


def _yaml(text: str, where: str) -> Any:
    try:
        tree = parsed_yaml(text, most_merged=MOST_VALUES)
    except MergeError as error:
        raise ConfigError(f"{where} {error}; write fewer of them") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply") from None
    except Exception as error:  # YAMLError, or an error of the parser in numbers, dates and keys
        raise ConfigError(f"{where} is not YAML: {one_line(error, MOST_CHARACTERS)}") from None
    return _plain_values(tree, where)


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


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    if len(parents) > MOST_DEPTH:
        raise ConfigError(f"the key {_shown(key)} is nested more than {MOST_DEPTH} deep; no key is")
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


def section_of(annotation: Any) -> type[ConfigSection] | None:
    """Return the section X of an annotation `X` or `X | None`; None for other annotations."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    found = [o for o in options if isinstance(o, type) and issubclass(o, ConfigSection)]
    return found[0] if len(found) == 1 else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _fields(
    root: type[ConfigSection], prefix: str = ""
) -> Iterator[tuple[str, Any, type[ConfigSection] | None]]:
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        yield prefix + name, field, section
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")


def _refuse_unknown_keys(root: type[ConfigSection], tree: dict[str, Any], origin: dict[str, str]) -> None:
    valid = {key: (field, section) for key, field, section in _fields(root)}

    def walk(node: dict[str, Any], prefix: str) -> None:
        for name, value in node.items():
            key = f"{prefix}{name}"
            if key not in valid:
                nearest = _nearest(key, list(valid))
                hint = f"did you mean {nearest!r}?" if nearest else "--help lists every key"
                raise ConfigError(f"unknown key {key!r} in {_where(key, origin)}; {hint}")
            if valid[key][1] is not None and isinstance(value, dict):
                walk(value, f"{key}.")

    walk(tree, "")


def _nearest(key: str, valid: list[str]) -> str | None:
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    if close:
        return close[0]
    # The key may be in another section: compare the last parts only.
    by_name = {candidate.rpartition(".")[2]: candidate for candidate in valid}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(by_name), n=1, cutoff=0.8)
    return by_name[close[0]] if close else None


def _where(key: str, origin: dict[str, str]) -> str:
    for candidate, where in reversed(origin.items()):
        if candidate == key or candidate.startswith(f"{key}.") or key.startswith(f"{candidate}."):
            return where
    return "the defaults"


def _explain(error: ValidationError, origin: dict[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] in ("missing", "value_error") else f", not {_shown(problem['input'])}"
        where = f" (from {_where(key, origin)})" if key else ""
        lines.append(f"{key}: {message}{given}{where}" if key else message)
    return "\n".join(dict.fromkeys(lines))


def _shown(value: Any) -> str:
    """Return a value for an error message, cut to MOST_CHARACTERS."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}... ({len(text)} characters)"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(map(str, typing.get_args(annotation)))
    if _is_union(annotation):
        return " | ".join(_type_name(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is tuple:
        return f"[{_type_name(typing.get_args(annotation)[0])}, ...]"
    return getattr(annotation, "__name__", str(annotation))
