"""Typed configuration: defaults < YAML < `key=value`, checked whole before any long work starts.

Every part of the package declares its own frozen section beside the code it configures, as a subclass of `Section`
whose attributes carry docstrings; the sections meet in one root (`fourds_dist.settings.Settings`). This file only knows
how to load, merge, check, describe and dump such a tree:

    settings = load(Settings, "configs/quickstart.yaml", ["launch.workers=4", "method.preset=authors"])
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

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from fourds_dist.storage import beside, is_url, read_text
from fourds_dist.yaml_text import MergeError, parsed_yaml


class Section(BaseModel):
    """Base of every configuration section: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, where it was given and what to do."""


S = TypeVar("S", bound=Section)

MOST_VALUES = 100_000
"""Of a configuration, with what its aliases stand for: a few lines of aliases of aliases would fill any memory."""

MOST_DEPTH = 50
"""Of sections and lists in each other."""

MOST_CHARACTERS = 300
"""Of a value that an error shows."""


@dataclass(frozen=True)
class Draft:
    """A configuration as it was given, before it is built: keys left out stay so, and a preset still fills them."""

    tree: dict[str, Any]
    origin: dict[str, str]
    """Dotted key -> where it was given."""

    def changed(self, changes: Mapping[str, Any], where: str) -> Draft:
        """The same with some dotted keys changed; `where` is told in errors about them."""
        tree, origin = deepcopy(self.tree), dict(self.origin)
        for key, value in changes.items():
            _set(tree, key, value)
            origin[key] = where
        return Draft(tree, origin)

    def refuse_unknown_keys(self, root: type[Section]) -> None:
        """Raise ConfigError for a key that `root` does not have, with the nearest valid one."""
        _refuse_unknown_keys(root, self.tree, self.origin)

    def build(self, root: type[S]) -> S:
        """The typed configuration.

        Raises:
            ConfigError: unknown key (the nearest valid one is suggested), wrong type, impossible value.
        """
        self.refuse_unknown_keys(root)
        try:
            # JSON mode: strict about scalars, while a YAML list still serves as a tuple.
            return root.model_validate_json(json.dumps(self.tree))
        except ValidationError as error:
            raise ConfigError(_explain(error, self.origin)) from None


def draft(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Draft:
    """What a YAML file (path or URL) and `dotted.key=value` overrides give, the later winning; see `load`.

    Raises:
        ConfigError: unreadable file, or an override that is not of that form.
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
    """What a YAML text gives.

    Raises:
        ConfigError: no YAML, or no `key: value` lines.
    """
    tree = _yaml(text, where)
    if not isinstance(tree, dict):
        raise ConfigError(f"{where} holds a {type(tree).__name__}; it should hold `key: value` lines")
    return Draft(tree, {key: where for key, _ in leaves(tree)})


def load(root: type[S], path: str | Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Build `root` from its defaults, a YAML file and `dotted.key=value` overrides, the later winning.

    A file is a path or URL. It may build on another one, named under `base` and relative to it. Values of overrides are
    YAML: `a.b=3`, `a.b=[1, 2]`, `a.b=null`.

    Raises:
        ConfigError: unreadable file, unknown key (the nearest valid one is suggested), wrong type, impossible value.
    """
    return draft(path, overrides).build(root)


def shipped(name: str) -> Path:
    """A configuration that comes with the package: in configs/ of a clone, inside the package once installed."""
    installed = Path(__file__).parent / "configs" / name
    return installed if installed.exists() else Path(__file__).parents[1] / "configs" / name


def dump(settings: Section) -> str:
    """The whole resolved configuration as YAML; `load` of it gives `settings` back."""
    return to_yaml(settings.model_dump(mode="json"))


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    yaml.dump(dict(tree), out)
    return out.getvalue()


def describe(root: type[Section]) -> Iterator[tuple[str, str, str, str]]:
    """Every key as (dotted key, type, default, meaning), in the order of declaration.

    The default is what the key has where nothing is given: a section's own, or what its default preset fills in.
    """
    yield from _described(root, "", None)


def _described(
    root: type[Section], prefix: str, default: Section | None
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in root.model_fields.items():
        value = getattr(default, name) if default else field.get_default(call_default_factory=True)
        section = section_of(field.annotation)
        if section is not None:
            yield from _described(section, f"{prefix}{name}.", value if isinstance(value, Section) else None)
        else:
            told = "required" if value is PydanticUndefined else json.dumps(_plain(value))
            yield (
                prefix + name,
                _type_name(field.annotation),
                told,
                " ".join((field.description or "").split()),
            )


def differing(old: Section, new: Section) -> dict[str, str]:
    """The dotted keys in which two configurations of one root differ -> 'key: old -> new'."""
    before, after = dict(leaves(old.model_dump(mode="json"))), dict(leaves(new.model_dump(mode="json")))
    keys = [*before, *(key for key in after if key not in before)]
    return {k: f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)}


def differences(old: Section, new: Section) -> list[str]:
    """The dotted keys in which two configurations of one root differ, as 'key: old -> new'."""
    return list(differing(old, new).values())


def as_words(settings: Section, keys: Iterable[str]) -> list[str]:
    """`key=value` words that give some keys the values that they have here."""
    values, words = dict(leaves(settings.model_dump(mode="json"))), []
    for key in keys:
        value = values[key]
        is_plain = isinstance(value, str) and _yaml(value, key) == value if value else False
        words.append(f"{key}={value if is_plain else json.dumps(value)}")
    return words


def _read(path: str, seen: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, str]]:
    """A file's tree over its base's, and where every leaf was given."""
    itself = path if is_url(path) else os.path.realpath(path)
    if itself in seen:
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
        return tree, {key: path for key, _ in leaves(tree)}
    if not isinstance(base, str):
        raise ConfigError(f"configuration {path}: base should be a path, not {base!r}")
    merged, origin = _read(beside(path, base), (*seen, itself))
    for key, value in leaves(tree):
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
    except Exception as error:  # besides YAMLError what its parser meets in odd numbers, dates and keys
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())[:MOST_CHARACTERS]}") from None
    return _plain_values(tree, where)


def _plain_values(tree: Any, where: str) -> Any:
    """The same tree, of values that JSON has as well; aliases become values of their own."""
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
                raise ConfigError(f"{where}{_of(key)} is no text: it holds half a character (a surrogate)")
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


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a tree that is no section."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def section_of(annotation: Any) -> type[Section] | None:
    """The section that an annotation stands for: `X` itself or `X | None`."""
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    found = [o for o in options if isinstance(o, type) and issubclass(o, Section)]
    return found[0] if len(found) == 1 else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _fields(root: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, type[Section] | None]]:
    for name, field in root.model_fields.items():
        section = section_of(field.annotation)
        yield prefix + name, field, section
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")


def _refuse_unknown_keys(root: type[Section], tree: dict[str, Any], origin: dict[str, str]) -> None:
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
    # A right word in the wrong section: compare the last parts alone.
    by_name = {candidate.rpartition(".")[2]: candidate for candidate in valid}
    close = difflib.get_close_matches(key.rpartition(".")[2], list(by_name), n=1, cutoff=0.8)
    return by_name[close[0]] if close else None


def _where(key: str, origin: dict[str, str]) -> str:
    for candidate, place in reversed(origin.items()):
        if candidate == key or candidate.startswith(f"{key}.") or key.startswith(f"{candidate}."):
            return place
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
    """A value in an error; its beginning where it is long."""
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
